"""Every file of golden numbers of a family that jgen has is taken by a test."""

import ast
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import oracle

TESTS = Path(__file__).parent
FAMILIES = (
    "adm", "biggan", "csgan", "dct", "diffusion", "diffusion_gan", "directions", "dit", "edm", "features", "gan_losses",
    "glow", "icgan", "image_ops", "inversion", "latent_diffusion", "metrics", "ncsn", "nvae", "pixelcnn", "projector", "pti",
    "r3gan", "score_sde", "stylegan1", "stylegan2", "stylegan3", "styleganxl", "tarflow", "unetgan", "vae", "vdvae", "vqvae",
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


@pytest.mark.parametrize("test", sorted(TESTS.rglob("test_oracle_*.py")), ids=lambda path: path.stem)
def test_a_test_that_compares_a_file_compares_all_of_it(test):
    functions = [node for node in ast.walk(ast.parse(test.read_text())) if isinstance(node, ast.FunctionDef)]
    taking = [f for f in functions if any("files(" in ast.unparse(mark) for mark in f.decorator_list)]
    part = [f.name for f in taking if ".check(" in ast.unparse(f) and "check_whole(" not in ast.unparse(f)]
    part = [name for name in part if name != "test_ada_values_and_gradients"]  # one case of many, and the whole of that
    assert not part, f"without o.check_whole(): {', '.join(part)}"


@pytest.mark.slow
def test_every_test_is_found_where_the_golden_numbers_are_not(tmp_path):
    """A stranger's clone has none: tests of them are skipped, and break no other."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-m", "slow or not slow", "tests"]
    environment = {**os.environ, "JGEN_ORACLES": str(tmp_path)}
    done = subprocess.run(command, cwd=TESTS.parent, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:]
