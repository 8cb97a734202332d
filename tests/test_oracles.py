"""Every file of golden numbers of a family that jgen has is taken by a test."""

import importlib
from pathlib import Path

import pytest

from tests import oracle

TESTS = Path(__file__).parent
FAMILIES = (
    "adm", "dct", "diffusion", "dit", "edm", "features", "gan_losses", "glow", "latent_diffusion", "metrics", "ncsn", "nvae",
    "pixelcnn", "score_sde", "stylegan1", "stylegan2", "tarflow", "vae", "vdvae", "vqvae",
)  # fmt: skip
"""Those that jgen has."""


def all_files() -> list[Path]:
    return [
        path
        for family in FAMILIES
        for folder in (oracle.ROOT, oracle.ROOT / "more")
        for path in (folder / family).glob("*.npz")
    ]


@pytest.mark.parametrize("path", all_files(), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_test_takes_every_file(path):
    for test in TESTS.rglob("test_oracle_*.py"):
        importlib.import_module(".".join(("tests", *test.relative_to(TESTS).with_suffix("").parts)))
    assert path in oracle.TAKEN, f"no test takes {path}"
