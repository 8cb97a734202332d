"""Packaging of jgen; tool settings are in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
REQUIREMENTS = [line for line in (HERE / "requirements.txt").read_text().splitlines() if line and line[0] != "#"]
TEST = ["pytest>=8", "pytest-xdist", "ruff", "pyright", "nbclient", "nbformat", "ipykernel"]

setup(
    name="jgen",
    version="0.1.0",
    description="Classic image generative models in JAX/Flax: they train, sample, are measured and checked.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["jgen", "jgen.*", "experiments", "experiments.*"]),
    package_data={"jgen.metrics": ["weights/*.npz"]},
    install_requires=REQUIREMENTS,
    extras_require={
        "test": TEST,
        "oracle": ["torch==2.13.0", "diffusers", "prdc", "pytorch-fid", "pythae", "vector-quantize-pytorch"],
        "gpu": ["jax[cuda12]"],
        "tpu": ["jax[tpu]"],
    },
)
