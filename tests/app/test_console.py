"""The command jgen: doctor, completion, and commands about runs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import jgen
from jgen.app import completion, console, doctor, examination
from jgen.app.examination import Finding
from tests import tiny


def test_doctor_shows_findings_and_ends_with_1_where_one_is_bad(monkeypatch, capsys):
    found = [Finding("devices", "ok", "1 cpu [x]")]
    monkeypatch.setattr(examination, "examine", lambda: found)
    doctor.main([])
    assert "1 cpu [x]" in capsys.readouterr().out
    found.append(Finding("cache", "bad", "can't be written"))
    with pytest.raises(SystemExit) as stopped:
        doctor.main([])
    assert stopped.value.code == 1


def test_the_machine_is_examined():
    names = {each.name: each for each in examination.examine()}
    assert "jax" in names["versions"].text
    assert "digits" in names["data sets"].text
    assert names["devices"].state == "ok"


@pytest.mark.parametrize("words, says", [
    (["doctr"], "did you mean doctor"), (["completion", "bahs"], "completion: bahs was given; must be one of bash, zsh"),
    (["export"], "name a run"),
    (["completion"], "completion: no shell was given"), (["train"], "jgen train RUN; or jgen EXPERIMENT to begin one"),
    (["sample", "nowhere"], "nowhere: no run there"), (["doctor", "--x"], "takes no options"),
    (["list", "gans"], "list gans: takes no options"),
])  # fmt: skip
def test_bad_words_are_one_line_with_the_nearest(words, says, capsys):
    with pytest.raises(SystemExit) as stopped:
        console.main(words)
    assert stopped.value.code == 2
    assert says in capsys.readouterr().err


def test_help_names_every_command(capsys):
    console.main(["--help"])
    text = capsys.readouterr().out
    for name in ("list", "doctor", "serve", "export", "completion", "data", "metrics", "train", "invert|edit|mix|generate"):
        assert f"jgen {name}" in text


@pytest.mark.parametrize("words, says", [
    (["help"], "jgen list"), (["--version"], f"jgen {jgen.__version__}"), (["list", "--help"], "takes no options"),
    (["sample", "--help"], "jgen sample RUN --help shows them"), (["train", "-h"], "jgen EXPERIMENT train --help"),
])  # fmt: skip
def test_help_is_there_without_a_run(words, says, capsys):
    console.main(words)
    assert says in capsys.readouterr().out


def test_the_newest_run_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "gan").mkdir(parents=True)
    tiny.stored("gan", tmp_path / "runs" / "gan" / "one")
    newest = str(Path("runs") / "gan" / "one")
    for words in (["newest", "--num", "4"], ["--run", newest, "--num", "4"]):
        assert console.of_run("sample", words) == ("experiments.gan", ["sample", "--run", newest, "--num", "4"])


def test_a_reader_that_stops_reading_ends_it_quietly():
    """As `| head` does."""
    ask = [sys.executable, "-m", "experiments.ddpm", "--help"]
    with subprocess.Popen(ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as shown:
        assert shown.stdout
        assert shown.stderr
        shown.stdout.close()
        assert shown.stderr.read() == b""


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_bash_completes_words(capsys):
    completion.main(["bash"])
    script = capsys.readouterr().out
    ask = "COMP_WORDS=(jgen {0}); COMP_CWORD={1}; _jgen; echo ${{COMPREPLY[@]}}\n"
    given = script + "".join(ask.format(*each) for each in (("dd", 1), ("ddpm sam", 2), ("data sh", 2), ("completion z", 2)))
    found = subprocess.run(["bash"], input=given, capture_output=True, text=True, check=True).stdout.split()
    assert found == ["ddpm", "sample", "show", "zsh"]


@pytest.mark.slow
def test_options_are_those_of_the_command(monkeypatch):
    monkeypatch.delitem(sys.modules, "experiments.ddpm", raising=False)  # runpy warns where a module is there already
    assert {"--preset", "--train.steps"} <= set(completion.options(["ddpm"]))
    assert completion.values("--preset", ["ddpm"]) == ["digits", "fashion_mnist", "emoji32", "cifar10"]
    assert "dpm_adaptive" in completion.values("--sampling.sampler", ["ddpm"])
    assert completion.values("--train.steps", ["ddpm"]) == []
    assert {"--out", "--split"} <= set(completion.options(["data", "show"]))
    assert completion.options(["nothing"]) == completion.options(["sample", "nowhere"]) == []
