"""Measures whether the tricks of GANs do anything:  python -m docs.tricks [MECHANISM ...] --seeds 3

Each mechanism is a pair of trainings that differ in one setting, and both take the same time: the side with the mechanism its
preset's steps, the other as many as fit into that. What is measured joins docs/tricks.json, seed by seed, and
`python -m docs.results` makes the table of docs/gans.md of it. --list names the pairs; --fashion is Fashion-MNIST, not digits.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

FILE = Path(__file__).resolve().parent / "tricks.json"
TIMED = 60
"""Steps that a step's time is measured by."""
NUM, NUM_OF_CLASS = 2000, 200
"""Samples of a score, and of a class."""


class Side(NamedTuple):
    """One training of a pair."""

    experiment: str
    flags: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"`{' '.join((self.experiment, *self.flags))}`"


PENALTIES = ("--penalty", "r1_r2", "--loss")
PAIRS = {
    "attention": (Side("sagan"), Side("sagan", ("--attention",))),
    "spectral norm": (Side("biggan"), Side("biggan", ("--no-spectral",))),
    "LOGAN's latents": (Side("logan"), Side("logan", ("--move-steps", "0"))),
    "CS-GAN's latents": (Side("csgan"), Side("csgan", ("--move-steps", "0"))),
    "U-Net D": (
        Side("unetgan", ("--cutmix", "0")),
        Side("csgan", ("--conditional", "--attention", "8", "--move-steps", "0")),
    ),
    "U-Net D with CutMix": (Side("unetgan"), Side("unetgan", ("--cutmix", "0"))),
    "instances": (Side("icgan"), Side("biggan", ("--no-conditional",))),
    "ADC against AC": (Side("adcgan"), Side("adcgan", ("--head", "auxiliary"))),
    "ADC against projection": (Side("adcgan"), Side("adcgan", ("--head", "projection"))),
    "relativistic pairing": (Side("gan", (*PENALTIES, "relativistic")), Side("gan", (*PENALTIES, "non_saturating"))),
    "R3GAN's R1 and R2": (Side("r3gan"), Side("r3gan", ("--gammas", "0", "0"))),
    "R3GAN's falling rates": (Side("r3gan"), Side("r3gan", ("--rates", "1e-3", "1e-3"))),
}
"""{mechanism: (with it, without it)}. The networks of a pair are the same but for the mechanism."""
SCORES = ("fd", "within_classes", "precision", "recall")
COLUMNS = ("mechanism", "with it", "without it", "seeds", "Fréchet", "within classes", "precision", "recall")


def read() -> list[dict[str, Any]]:
    """The measurements: {mechanism, preset, seed, with, without}, a side {steps, ms, fd, precision, recall, within_classes}."""
    return json.loads(FILE.read_text())


def rows(found: Sequence[Mapping[str, Any]], preset: str = "digits") -> list[tuple[str, ...]]:
    """The rows of the table `COLUMNS`: means over seeds, with / without the mechanism."""
    made = []
    for name, sides in PAIRS.items():
        own = [each for each in found if (each["mechanism"], each["preset"]) == (name, preset)]
        cells = [_means(own, key) for key in SCORES] if own else ["not measured", "", "", ""]
        made.append((name, *map(str, sides), str(len(own)), *cells))
    return made


def _means(found: Sequence[Mapping[str, Any]], key: str) -> str:
    values = [[each[side].get(key) for each in found] for side in ("with", "without")]
    return " / ".join("-" if None in side else f"{np.mean(side):.2f}" for side in values)


def trained(side: Side, preset: str, folder: Path, seed: int, steps: int = 0) -> Path:
    """A run's folder, after its training in a process of its own; steps: other than the preset's."""
    flags = ["--preset", preset, "--name", str(folder), "--train.seed", str(seed), "--train.sample-every", "0", *side.flags]
    flags += ["--train.steps", str(steps), "--train.save-every", str(steps)] if steps else []
    subprocess.run([sys.executable, "-m", f"experiments.{side.experiment}", *flags], check=True, stdout=subprocess.DEVNULL)
    return folder


def milliseconds(side: Side, preset: str) -> float:
    """The time of a step, without compilation, as a short run's facts state it."""
    with tempfile.TemporaryDirectory() as folder:
        path = trained(side, preset, Path(folder) / "run", 0, TIMED)
        return float(json.loads((path / "facts.json").read_text())["time"].split()[0])


def measure(name: str, seed: int, preset: str) -> dict[str, Any]:
    """One seed of a pair, as `read` gives it."""
    from docs.tricks_scores import scores_of, steps_of  # which import jax, and the trainings beside them need the memory

    times = [milliseconds(side, preset) for side in PAIRS[name]]
    found: dict[str, Any] = {"mechanism": name, "preset": preset, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        steps = 0
        for key, side, time in zip(("with", "without"), PAIRS[name], times):
            run = trained(side, preset, Path(folder) / key, seed, steps)
            found[key] = {"steps": steps_of(run), "ms": time, **scores_of(run, NUM, NUM_OF_CLASS)}
            steps = round(found[key]["steps"] * times[0] / times[1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="MECHANISM")
    parser.add_argument("--seeds", type=int, default=1, help="so many seeds from 0 on; those in the file are passed over")
    parser.add_argument("--fashion", action="store_true", help="on Fashion-MNIST")
    parser.add_argument("--list", action="store_true", help="names the pairs")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(PAIRS)):
        parser.error(f"{unknown[0]}: no such mechanism; there are {', '.join(PAIRS)}")
    if given.list:
        print("\n".join(PAIRS))
        return
    preset = "fashion_mnist" if given.fashion else "digits"
    for seed in range(given.seeds):
        for name in given.names or PAIRS:
            if (name, preset, seed) in {(each["mechanism"], each["preset"], each["seed"]) for each in read()}:
                continue
            found = measure(name, seed, preset)
            FILE.write_text("[\n" + ",\n".join(json.dumps(each) for each in [*read(), found]) + "\n]\n")
            print(json.dumps(found))


if __name__ == "__main__":
    main()
