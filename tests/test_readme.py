"""The table of costs, the benchmarks, and the package as it is imported; tests/test_docs.py checks the README's words."""

import json
import sys

import pytest

import jgen
from jgen.app import protocol
from tests import tiny


def test_the_table_of_costs_names_the_presets_that_exist():
    """A row for every preset for CPUs, with its steps and batch; those for accelerators have a table of their own."""
    elsewhere = {(row["experiment"], row["preset"]) for row in protocol.rows()}
    rows, experiment = {}, ""
    for line in (tiny.ROOT / "docs" / "costs.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        if len(cells) > 2 and cells[1].startswith("`"):
            experiment = cells[0].strip("`") or experiment
            rows[experiment, cells[1].strip("`")] = cells[2]
    for experiment in tiny.EXPERIMENTS:
        for name, config in tiny.module(experiment).PRESETS.items():
            if (experiment, name) in elsewhere:
                continue
            prior = f" + {config.prior.prior_steps:,}" if hasattr(config, "prior") else ""
            own = next(iter(getattr(config, "stages", ())), None)
            before = config.growth.first_steps if hasattr(config, "growth") else getattr(own, "steps", 0)
            first = f"{before:,} + " if before else ""
            assert rows[experiment, name] == f"{first}{config.train.steps:,}{prior} x {config.data.batch_size}"


def test_benchmarks_print_and_write_their_rows(tmp_path):
    tiny.run("-m", "benchmarks", "scan_steps", "--json", "rows.json", cwd=tmp_path)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert set(rows[0]) == {"name", "value", "unit", "aim", "met", "detail"}
    assert rows[0]["value"] > 0
    done = tiny.run("-m", "benchmarks", "nothing", cwd=tmp_path, check=False)
    assert done.returncode == 2
    assert "no such benchmark" in done.stderr


def test_the_lazy_package_offers_what_it_says():
    assert callable(jgen.main)
    assert callable(jgen.load)
    assert jgen.samplers.ddim is jgen.samplers.ddim
    for name in ("convert", "data", "models", "nn", "objectives", "schedules", "train", "types"):
        assert getattr(jgen, name).__name__ == f"jgen.{name}"


SCRIPT = """
import jgen

run = jgen.load("newest")
images = run.sample(16, sampler="heun", steps=18)
reveal_type(run)
reveal_type(images)
reveal_type(jgen.samplers.ddim)
"""


@pytest.mark.slow
def test_types_are_known_in_a_script_outside_of_the_clone(tmp_path):
    """To pyright, as an editor asks it: the package as it is installed."""
    (tmp_path / "script.py").write_text(SCRIPT)
    done = tiny.run("-m", "pyright", "--pythonpath", sys.executable, "script.py", cwd=tmp_path, check=False)
    assert "0 errors" in done.stdout, done.stdout
    for shown in ('"run" is "Run"', '"images" is "ndarray', "predict: (Array, Array) -> (Prediction | Array)"):
        assert shown in done.stdout
