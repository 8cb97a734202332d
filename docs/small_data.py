"""Measures what GANs make of a small set:  python -m docs.small_data [METHOD ...] --seeds 3 --minutes 5

Every method trains on the same few hundred portraits, at 32x32, for the same time; the steps that fit into it follow from the
time of a step. What is measured joins docs/small_data.json, seed by seed, and `python -m docs.results` makes the table of
docs/gans.md of it. --features FILE names a network of the set's own, beside EfficientNet-Lite0: it is trained by
`python -m experiments.classifier --preset emoji32`, and `python -m jgen.metrics export RUN` makes its file. --keep FOLDER keeps
the first seed's runs, and draws docs/small_data.png of all that are there: samples beside the training images nearest to them.
"""

import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from docs import studies
from docs.studies import Side, milliseconds, trained

FILE = Path(__file__).resolve().parent / "small_data.json"
PRESET, NUM = "emoji32", 1000
"""The preset of all methods, and the samples of a score."""
SET = ("--data.name", "emoji:portraits")
METHODS = {
    "StyleGAN2": Side("stylegan2", (*SET, "--augment", "none")),
    "ADA": Side("stylegan2", (*SET, "--augment", "ada")),
    "DiffAug": Side("stylegan2", (*SET, "--augment", "diffaug")),
    "Diffusion-GAN": Side("diffusion_gan", SET),
    "Projected GAN": Side("projected_gan", SET),
}
"""{method: its training}."""
SCORES = ("fd", "fd_own", "recall", "authenticity", "distance")
COLUMNS = (
    "method", "command", "seeds", "steps", "Fréchet (EfficientNet-Lite0)", "Fréchet (own features)", "recall", "authenticity",
    "distance to the nearest training image",
)  # fmt: skip


def read() -> list[dict[str, Any]]:
    """The measurements: {method, seed, minutes, steps, ms, and the numbers of `SCORES`}."""
    return studies.read(FILE)


def rows(found: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """The rows of the table `COLUMNS`: means over seeds, and from the least to the largest where there are several."""
    made = []
    for name, side in METHODS.items():
        own = [each for each in found if each["method"] == name]
        steps = f"{round(np.mean([each['steps'] for each in own])):,}" if own else ""
        cells = [_shown([each[key] for each in own if each.get(key) is not None]) for key in SCORES]
        made.append((name, str(side), str(len(own)), steps, *cells))
    return made


def _shown(values: Sequence[float]) -> str:
    if not values:
        return "not measured"
    mean = f"{np.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3g} to {max(values):.3g})"


def measure(method: str, seed: int, *, minutes: float, features: str, keep: str) -> dict[str, Any]:
    """One seed of a method, as `read` gives it."""
    from docs.small_data_scores import scores_of  # which imports jax, and the training beside it needs the memory

    side = METHODS[method]
    before = next((each["ms"] for each in read() if each["method"] == method), 0)
    time = before or milliseconds(side, PRESET)  # all seeds take the same steps
    steps = round(60_000 * minutes / time)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(keep).resolve() if keep and not seed else Path(folder)
        run = trained(side, PRESET, home / _folder_of(method), seed, steps)
        return {"minutes": minutes, "steps": steps, "ms": time, **scores_of(run, NUM, features)}


def _folder_of(method: str) -> str:
    return method.replace(" ", "_")


def main() -> None:
    parser = studies.parser_of(__doc__, "method")
    parser.add_argument("--minutes", type=float, default=5, help="of training, by a method")
    parser.add_argument("--features", default="", help="a file of the set's own features")
    parser.add_argument("--keep", default="", help="a folder for the runs of the first seed, of which it draws a picture")
    given = studies.parsed(parser, "method", METHODS)
    if given.minutes <= 0:
        parser.error(f"--minutes {given.minutes}: must be above 0")
    wanted = ({"method": name, "seed": seed} for seed in range(given.seeds) for name in given.names)
    studies.measured(FILE, wanted, partial(measure, minutes=given.minutes, features=given.features, keep=given.keep))
    runs = {name: Path(given.keep) / _folder_of(name) for name in METHODS} if given.keep else {}
    if kept := {name: run for name, run in runs.items() if run.is_dir()}:
        from docs.small_data_scores import beside_training

        beside_training(kept).save(FILE.with_suffix(".png"), optimize=True)


if __name__ == "__main__":
    main()
