"""Measures whether the tricks of GANs do anything:  python -m docs.tricks [MECHANISM ...] --seeds 3

Each mechanism is a pair of trainings that differ in one setting, and both take the same time: the side with the mechanism its
preset's steps, the other as many as fit into that. What is measured joins docs/tricks.json, seed by seed, and
`python -m docs.results` makes the table of docs/gans.md of it. --list names the pairs; --fashion is Fashion-MNIST, not digits.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from docs import studies
from docs.studies import Side, milliseconds, trained

FILE = Path(__file__).resolve().parent / "tricks.json"
NUM, NUM_OF_CLASS = 2000, 200
"""Samples of a score, and of a class."""


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
    return studies.read(FILE)


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


def measure(mechanism: str, preset: str, seed: int) -> dict[str, Any]:
    """One seed of a pair, as `read` gives it."""
    from docs.tricks_scores import scores_of, steps_of  # which import jax, and the trainings beside them need the memory

    def side_of(side: Side, time: float, steps: int) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            run = trained(side, preset, Path(folder) / "run", seed, steps)
            return {"steps": steps_of(run), "ms": time, **scores_of(run, NUM, NUM_OF_CLASS)}

    first, second = PAIRS[mechanism]
    before = (each for each in read() if (each["mechanism"], each["preset"]) == (mechanism, preset))
    if found := next(before, None):  # all seeds take the same steps
        times = found["with"]["ms"], found["without"]["ms"]
    else:
        times = milliseconds(first, preset), milliseconds(second, preset)  # beside each other, so that the load is alike
    with_it = {**(_of_another_pair(first, preset, seed) or side_of(first, times[0], 0)), "ms": times[0]}
    return {"with": with_it, "without": side_of(second, times[1], round(with_it["steps"] * times[0] / times[1]))}


def _of_another_pair(side: Side, preset: str, seed: int) -> dict[str, Any] | None:
    """The scores of a pair with the same first side, as the same training gives the same weights; None where none was run."""
    for each in read():
        if PAIRS[each["mechanism"]][0] == side and (each["preset"], each["seed"]) == (preset, seed):
            return each["with"]
    return None


def main() -> None:
    parser = studies.parser_of(__doc__, "mechanism")
    parser.add_argument("--fashion", action="store_true", help="on Fashion-MNIST")
    parser.add_argument("--list", action="store_true", help="names the pairs")
    given = studies.parsed(parser, "mechanism", PAIRS)
    if given.list:
        print("\n".join(PAIRS))
        return
    preset = "fashion_mnist" if given.fashion else "digits"
    wanted = ({"mechanism": name, "preset": preset, "seed": seed} for seed in range(given.seeds) for name in given.names)
    studies.measured(FILE, wanted, measure)


if __name__ == "__main__":
    main()
