"""Modes that a GAN finds among Gaussians in the plane, with and without moved latents (Wu et al. 2019, arXiv:1912.00953).

    python -m experiments.gaussians            # ring and grid, three moves, one seed: a minute or two on 2 CPU cores
    python -m experiments.gaussians --seeds 3

The ring of 8 and the grid of 25 of VEEGAN (Srivastava et al. 2017, arXiv:1705.07761), with its measures: modes found, and the
share of 2,500 points within three deviations of one. A plain GAN of two hidden layers, LOGAN and CS-GAN have the same networks,
loss and number of steps. Writes runs/gaussians/gaussians.png and gaussians.json.
"""

import argparse
import json
from pathlib import Path
from typing import Any


def build(steps: int, seeds: int, out: Path) -> dict[str, Any]:
    """Writes the picture, and gives the numbers that it shows."""
    from jgen.recipes.gan.gaussians import figure, study

    found = study(steps, seeds)
    out.mkdir(parents=True, exist_ok=True)
    figure(found).savefig(out / "gaussians.png", dpi=110)
    return {
        name: {move: {k: v for k, v in each.items() if k != "points"} for move, each in moves.items()}
        for name, moves in found.items()
    }


def main() -> None:
    """Runs the study from the shell."""
    title = (__doc__ or "").split("\n", 1)[0]
    parser = argparse.ArgumentParser(prog="python -m experiments.gaussians", description=title)
    parser.add_argument("--out", type=Path, default=Path("runs/gaussians"), help="folder of the picture and the numbers")
    parser.add_argument("--steps", type=int, default=10_000, help="training steps of each GAN")
    parser.add_argument("--seeds", type=int, default=1, help="trainings of each")
    options = parser.parse_args()
    for name in ("steps", "seeds"):
        if getattr(options, name) < 1:
            parser.error(f"--{name}={getattr(options, name)}: must be at least 1")
    numbers = json.dumps(build(options.steps, options.seeds, options.out), indent=2)
    (options.out / "gaussians.json").write_text(numbers)
    print(f"{numbers}\npicture: {options.out / 'gaussians.png'}")


if __name__ == "__main__":
    main()
