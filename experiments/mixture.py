"""Where score matching fails and why, on two Gaussians in the plane (Song & Ermon 2019, section 3.2 and figures 2 and 3).

    python -m experiments.mixture            # half a minute on 2 CPU cores: runs/mixture/mixture.png and mixture.json

Data hold a fifth at (5, 5) and four fifths at (-5, -5). A score learned without noise is wrong where there are no data, and
Langevin dynamics, which sees the modes' weights nowhere, ends with shares that its start decides. With noise from large to
small the score is right everywhere at some level, and annealed Langevin dynamics recovers the shares.
"""

import argparse
import json
from pathlib import Path


def build(steps: int, out: Path) -> dict:
    """Writes the picture, and gives the numbers that it shows."""
    import matplotlib

    from jgen.recipes.score.mixture import figure, study

    matplotlib.use("Agg")
    found = study(steps)
    out.mkdir(parents=True, exist_ok=True)
    figure(found).savefig(out / "mixture.png", dpi=110)
    return {name: value for name, value in found.items() if name not in ("samples", "grid", "fields")}


def main() -> None:
    """Runs the study from the shell."""
    title = (__doc__ or "").split("\n", 1)[0]
    parser = argparse.ArgumentParser(prog="python -m experiments.mixture", description=title)
    parser.add_argument("--out", type=Path, default=Path("runs/mixture"), help="folder of the picture and the numbers")
    parser.add_argument("--steps", type=int, default=4000, help="training steps of each network")
    options = parser.parse_args()
    if options.steps < 1:
        parser.error(f"--steps={options.steps}: must be at least 1")
    numbers = json.dumps(build(options.steps, options.out), indent=2)
    (options.out / "mixture.json").write_text(numbers)
    print(f"{numbers}\npicture: {options.out / 'mixture.png'}")


if __name__ == "__main__":
    main()
