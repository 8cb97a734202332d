"""Pages: commands can be typed, examples run, links lead somewhere, tables are those of the records."""

import ast
import functools
import json
import re
import runpy
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import nbformat
import numpy as np
import pytest
from PIL import Image

import jgen
from docs import gallery, notebooks, results, small_data, studies, tricks
from jgen import pictures
from jgen.app.parsing import parse_config
from tests import tiny

DOCS = tiny.ROOT / "docs"
PAGES = {str(path.relative_to(tiny.ROOT)): path.read_text() for path in [*results.pages(), tiny.ROOT / "CONTRIBUTING.md"]}
COMMAND = re.compile(r"^ *python -m (experiments\.\w+|jgen\.data|jgen\.metrics)(.*)$", re.M)


@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "<!-- end -->" in page])
def test_tables_are_those_of_the_records(name):
    assert results.fill(PAGES[name], results.read()) == PAGES[name], "run python -m docs.results"


def test_records_hold_every_preset_and_experiment_once():
    data = results.read()
    keys = [(record["experiment"], record["preset"]) for record in data["records"]]
    assert len(set(keys)) == len(keys)
    families = [name for family in data["families"] for name in family["experiments"]]
    assert sorted(families) == sorted([*tiny.EXPERIMENTS, *tiny.STUDIES])
    for record in data["records"]:
        assert set(record) - {"default"} == {
            "experiment", "preset", "steps", "batch", "cost", "found", "command", "processor", "note",
        }, record  # fmt: skip
    for family in data["families"]:
        shown = re.search(r"<!-- results: ([^>]*) -->", (DOCS / "families" / f"{family['page']}.md").read_text())
        assert shown
        assert set(family["experiments"]) - {*tiny.STUDIES} == set(shown[1].split())


def test_the_pairs_of_tricks_can_be_trained_and_shown():
    for name, sides in tricks.PAIRS.items():
        settings = [parse_config(tiny.module(side.experiment).PRESETS["digits"], side.flags) for side in sides]
        assert settings[0] != settings[1], name
    side = {"steps": 9, "ms": 1.0, "fd": 1.0, "precision": 0.5, "recall": 0.25}
    same = {"mechanism": "attention", "preset": "digits", "with": side}
    measured = [{**same, "seed": seed, "without": {**side, "fd": seed}} for seed in (0, 1)]
    assert tricks.rows(measured)[0][3:] == ("2", "1.00 / 0.50", "- / -", "0.50 / 0.50", "0.25 / 0.25")
    assert {row[4] for row in tricks.rows(measured)[1:]} == {"not measured"}
    for each in tricks.read():
        assert each["mechanism"] in tricks.PAIRS
        assert {"steps", "ms", *tricks.SCORES} >= set(each["with"]) >= set(side)


def test_the_methods_for_small_data_can_be_trained_and_shown():
    sides = [(tiny.module(side.experiment).PRESETS[small_data.PRESET], side.flags) for side in small_data.METHODS.values()]
    settings = [parse_config(*side) for side in sides]
    assert {config.data.name for config in settings} == {"emoji:portraits"}
    assert len({str(config) for config in settings}) == len(settings)
    scored = {"steps": 1000, "ms": 1.0, "fd": 20.0, "precision": 0.5, "recall": 0.25, "authenticity": 1.0, "distance": 0.9}
    measured = [{"method": "ADA", "seed": seed, "minutes": 5, **scored, "fd": 20.0 + 2 * seed} for seed in (0, 1)]
    row = small_data.rows(measured)[1]
    assert row[2:5] == ("2", "1,000", "21 (20 to 22)")
    assert row[5] == "not measured"
    assert small_data.rows(measured[:1])[1][6:] == ("0.25", "1", "0.9")
    for each in small_data.read():
        assert each["method"] in small_data.METHODS
        assert set(each) - {"fd_own"} == {"method", "seed", "minutes", *scored}


def test_a_study_measures_what_is_not_in_its_file(tmp_path, capsys):
    file = tmp_path / "study.json"
    file.write_text('[{"name": "a", "seed": 0, "found": 1}]')
    wanted = [{"name": name, "seed": 0} for name in ("a", "b")]
    for _ in range(2):
        studies.measured(file, wanted, lambda name, seed: {"found": f"{name}{seed}"})
    assert studies.read(file) == [{"name": "a", "seed": 0, "found": 1}, {"name": "b", "seed": 0, "found": "b0"}]
    assert len(capsys.readouterr().out.splitlines()) == 1


def test_links_lead_to_files():
    for name, page in PAGES.items():
        here = (tiny.ROOT / name).parent
        for target in re.findall(r"\]\(([^)#\s]+)", re.sub(r"```.*?```", "", page, flags=re.S)):
            if not target.startswith("http"):
                assert (here / target).exists(), (name, target)


def test_the_reference_holds_every_module():
    """Its pages name packages, whose modules mkdocstrings finds itself."""
    named = {word for page in (DOCS / "api").glob("*.md") for word in re.findall(r"^::: (\S+)$", page.read_text(), re.M)}
    for path in (tiny.ROOT / "jgen").iterdir():
        if (path.suffix == ".py" and not path.name.startswith("__")) or (path / "__init__.py").exists():
            assert f"jgen.{path.stem}" in named, path
    assert "experiments" in named


@pytest.fixture
def help_of(capsys, monkeypatch):
    """What --help shows for a module and a command."""

    @functools.cache
    def shown(module, *command):
        monkeypatch.setattr(sys, "argv", [module, *command, "--help"])
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__")
        assert not end.value.code, (module, command)
        return capsys.readouterr().out

    return shown


def check_commands(pages, help_of):
    """Each `python -m` line of some pages names a module and flags that exist."""
    for name, page in pages.items():
        for module, rest in COMMAND.findall(page):
            words = rest.split("#")[0].split()
            command = words[: 1 if words and words[0][0] != "-" else 0]
            for option in ("--sampler", "--preset"):  # which decide what the help shows
                if option in words:
                    command += words[words.index(option) : words.index(option) + 2]
            shown = help_of(module, *command)
            for flag in {word for word in words if word.startswith("--")} - {"--help"}:
                assert flag in shown, (name, module, rest)


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_of_the_readme_is_understood(help_of):
    assert len(COMMAND.findall(PAGES["README.md"])) >= 5
    check_commands({"README.md": PAGES["README.md"]}, help_of)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_every_command_of_the_pages_is_understood(help_of):
    """Those of the docs and of the experiments' docstrings."""
    docstrings = {name: tiny.module(name).__doc__ for name in (*tiny.EXPERIMENTS, *tiny.STUDIES)}
    check_commands({**PAGES, **docstrings}, help_of)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
@pytest.mark.parametrize("family", results.read()["families"], ids=lambda family: family["page"])
def test_the_options_of_a_family_exist(family, help_of):
    """Those that the first cells of its page's tables name, in training, sampling, or the commands for pictures."""
    page = (DOCS / "families" / f"{family['page']}.md").read_text()
    more = {"inversion": [("invert",), ("edit",), ("mix",)], "diffusion": [("sample", "--sampler", "ddim")]}
    shown = ""
    for name in {*family["experiments"]} - {*tiny.STUDIES}:
        samples = hasattr(tiny.module(name).Config(), "sampling")
        shown += help_of(f"experiments.{name}") + (help_of(f"experiments.{name}", "sample") if samples else "")
    for command in more.get(family["page"], []):
        shown += help_of(f"experiments.{family['experiments'][0]}", *command)
    for cell in re.findall(r"^\| (`--[^|]*) \|", page, re.M):
        for flag in re.findall(r"--[\w.-]+", cell):
            assert flag in shown, (family["page"], flag)


@pytest.fixture(scope="module")
def toy_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs")
    tiny.run("-m", "experiments.ddpm", "--name", "readme", *tiny.FLAGS["ddpm"], cwd=folder)
    return folder


@pytest.mark.slow
def test_small_data_s_picture_has_a_panel_a_run(toy_run):
    from docs.small_data_scores import GAP, LABEL, SAMPLES, beside_training

    (run,) = toy_run.glob("**/config.json")
    one, two = (beside_training({name: run.parent for name in names}) for names in (("a",), ("a", "b")))
    assert (two.width, two.height) == (2 * one.width + GAP, one.height)
    rows = pictures.tiles(one.crop((0, LABEL, *one.size)), 8, 8)
    training = np.stack([each["image"] for each in map(jgen.load(run.parent).stage.open_source().__getitem__, range(64))])
    assert len(rows) == 8 * SAMPLES
    nearest = rows.reshape(SAMPLES, 8, 8, 8, 3)[:, 1:, ..., :1].reshape(-1, 8, 8, 1)
    assert all((image == training).all((1, 2, 3)).any() for image in nearest)


def toy_styles():
    """The names that the example of styles takes as given."""
    key = jax.random.key(0)
    return {
        "net": SimpleNamespace(num_ws=6), "synthesis": lambda ws: jnp.zeros((len(ws), 8, 8, 1)) + ws.mean(),
        "ws_columns": jnp.ones((3, 6, 4)), "ws_rows": jnp.ones((3, 6, 4)), "ws": jnp.ones((2, 6, 4)), "w_avg": jnp.zeros(4),
        "psis": jnp.linspace(0, 1, 3), "keys": jax.random.split(key, 2), "sides": {"b4": 4, "b8": 8},
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, page in PAGES.items() if "```python" in page])
def test_the_examples_of_a_page_run(name, toy_run, monkeypatch):
    """In order, in one namespace; of those that need an official file, the functions they name."""
    monkeypatch.chdir(toy_run)
    names = toy_styles() if "stylegan" in name else {}
    for block in re.findall(r"```python\n(.*?)```", PAGES[name], re.S):
        if "load_weights(" in block:
            for found in re.findall(r"jgen\.(convert\.[\w.]+)", block):
                value = jgen
                for part in found.split("."):
                    value = getattr(value, part)
                assert callable(value)
            ast.parse(block)
        else:
            block = block.replace("digits-…", "readme").replace("timesteps=50", "timesteps=5")
            exec(block.replace("devices=8, fsdp=4", "devices=1"), names)
    if "jgen.load" in PAGES[name].split("module=")[0] and "images" in names:
        assert np.isfinite(names["images"]).all()


def test_a_gallery_is_made_of_the_pixels_that_a_run_wrote(tmp_path, monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    (tmp_path / "config.json").write_text(json.dumps({"module": "experiments.x", "config": {"data": {"shape": [8, 8, 1]}}}))
    pictures.save(pictures.grid(images), tmp_path / "samples.png")
    (tmp_path / "samples").mkdir()
    name, some = gallery.samples(tmp_path)
    assert name == "x"
    assert some.shape == (gallery.COUNT, 8, 8, 3)
    for step in (10, 20):
        pictures.save(pictures.grid(images), tmp_path / "samples" / f"{step:08d}.png")
    name, lines = gallery.over_training(tmp_path)
    assert (name, len(lines)) == ("x", 2)
    monkeypatch.setattr(gallery, "KEPT", tmp_path / "kept")
    gallery.keep("ddpm", some)
    assert (gallery.kept()["ddpm"] == some).all()
    sheet = gallery.compose([gallery.strip(name, some)] * 7, [])
    assert sheet.size == (3 * gallery.WIDTH + 4 * gallery.MARGIN, 3 * (lines[0].height + gallery.MARGIN) + gallery.MARGIN)
    monkeypatch.undo()
    with Image.open(DOCS / "gallery.png") as stored:
        assert stored.width == sheet.width


STORED = sorted((tiny.ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_notebook_is_stored_with_its_pictures(path):
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
    assert path.stat().st_size < 200_000
    assert "pip install" in "".join(cells[1]["source"]), "the first cell installs jgen"


@pytest.mark.parametrize("path", STORED, ids=lambda path: path.stem)
def test_a_published_notebook_opens_on_colab_and_installs_the_copy(path):
    def cells_of(owner_and_name):
        return [cell.source for cell in notebooks.published(notebook, path.stem, owner_and_name).cells]

    notebook = nbformat.read(path, as_version=4)
    before = [cell.source for cell in notebook.cells]
    cells_of("somebody/first")  # an address from before is replaced
    title, install, *rest = cells_of("a-b/jgen.c")
    address = f"https://colab.research.google.com/github/a-b/jgen.c/blob/main/notebooks/{path.stem}.ipynb"
    assert title.count("colab-badge.svg") == 1
    assert f"({address})" in title
    assert "first" not in title + install
    assert [line for line in title.splitlines() if line and "badge" not in line] == [
        line for line in before[0].splitlines() if line
    ]
    assert 'SOURCE = "git+https://github.com/a-b/jgen.c"' in install
    assert "%pip install -q $SOURCE" in install
    ast.parse(install.replace("%pip install -q $SOURCE", "print(SOURCE)"))
    assert rest == before[2:]


@pytest.mark.parametrize("at", ["github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", "https://github.com/a/b/c"])
def test_an_address_that_colab_cannot_open_is_refused(at, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["notebooks", "--keep", "--at", at])
    with pytest.raises(SystemExit) as stopped:
        notebooks.main()
    assert stopped.value.code == 2
    assert f"--at {at}: must be https://github.com/OWNER/NAME" in capsys.readouterr().err
