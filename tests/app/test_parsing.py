"""Words that are no options, and values of another kind, get one line."""

import pytest

import jgen
from experiments import ddpm
from jgen.app.data_command import main as data
from jgen.app.metrics_command import main as metrics


@pytest.mark.parametrize("words, says", [
    ("--trian.steps 100", "--trian.steps: no such option (did you mean --train.steps, --sampling.steps?)"),
    ("--steps 100", "--steps: no such option (did you mean --train.steps, --sampling.steps?)"),
    ("-preset digits", "-preset: no such option (did you mean --preset?)"),
    ("--sampler heun", "--sampler: no such option (did you mean --sampling.sampler?)"),
    ("--sampling.sampler heun --sampling.eta 1", "--sampling.eta: is an option of --sampler ddim, not of heun"),
    ("--sampling.sampler huen", "sampling.sampler=huen: must be one of ddim, "),
    ("--xyz", "--xyz: no such option; --help shows those there are"),
    ("--conditional true", "--conditional true: --conditional takes no value, and --no-conditional is its opposite"),
    ("--data.flip --dry-run digits", "--dry-run digits: --dry-run takes no value, and --no-dry-run is its opposite"),
    ("--channels 32 64", "64: is no option, nor the value of one"),
    ("--train.steps ten", "train.steps=ten: must be a whole number"),
    ("--train.steps=1.5", "train.steps=1.5: must be a whole number"),
    ("--learning_rate fast", "learning-rate=fast: must be a number"),
    ("--channel-mult 1,2", "channel-mult=1,2: must be numbers with spaces between"),
    ("--prediction noise", "prediction=noise: must be one of eps, x0, v"),
    ("--train.dtype bfloat", "train.dtype=bfloat: must be one of float32, bfloat16 (did you mean bfloat16, float32?)"),
    ("--dry-run --channels", "channels: no value was given"),
])  # fmt: skip
def test_a_word_that_is_not_understood_gets_one_line(words, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, words.split())
    said = capsys.readouterr().err
    assert said.startswith(f"error: {says}")
    assert said.count("\n") == 1


def test_no_run_is_named_with_the_folder_that_was_searched(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="2"):
        jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, ["sample"])
    assert f"no run in {tmp_path}/runs/ddpm: train one first" in capsys.readouterr().err


def test_the_folder_of_a_run_without_its_option_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(SystemExit, match="2"):
        jgen.main(ddpm.Config, ddpm.build, ddpm.PRESETS, ["--channels", "8", str(tmp_path)])
    assert f"a run is named by --run {tmp_path}" in capsys.readouterr().err


@pytest.mark.parametrize("main, words, says", [
    (data, "", "jgen.data: name a command, one of list, show, prepare"),
    (data, "shw digits", "shw: no such command (did you mean show?); it may be list, show, prepare"),
    (data, "show", "jgen.data show: one argument is missing: digits, "),
    (data, "show digits --nmu 3", "--nmu: no such option (did you mean --num?)"),
    (data, "show digits --num x", "num=x: must be a whole number"),
    (metrics, "compare a.json", "jgen.metrics compare: one argument is missing: b"),
    (metrics, "pairs a b --metric psnr", "--metric: no such option (did you mean --metrics?)"),
])  # fmt: skip
def test_commands_of_data_and_metrics_refuse_in_one_line(main, words, says, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(words.split())
    said = capsys.readouterr().err
    assert said.startswith(f"error: {says}")
    assert said.count("\n") == 1
