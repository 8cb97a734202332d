"""A sampler of one pass as an ONNX network, noise -> images, by jax2onnx; written only where onnxruntime agrees with it."""

import importlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jgen.app.load import Run
from jgen.errors import UserError
from jgen.files import replacing
from jgen.samplers import image_keys
from jgen.samplers.common import given_noise, noise_shapes
from jgen.types import Array

NETWORK = "network.onnx"
CLOSE = 1e-4
"""The greatest difference of an image in [-1, 1] between JAX and onnxruntime."""


def write_onnx(run: Run, path: Path, batch: int, options: Any = None) -> None:
    """Writes the network of a run: its inputs are the standard normal noise that its sampler draws, for `batch` images.

    Raises UserError for a sampler of many steps, and, with the reason, for a network that the converter does not take or
    whose images differ.
    """
    stage, params = run.stage, jax.device_get(run.params)
    chosen = stage.options if options is None else options
    if stage.sample is None or hasattr(chosen, "solver"):
        raise UserError(f"to=onnx: {stage.name} draws in steps, or not at all, which no ONNX file holds; take --to stablehlo")
    sample, extra = stage.sample, jax.device_get(stage.extra_for(run.extra, chosen, run.mesh))
    with noise_shapes() as shapes:
        jax.eval_shape(lambda: sample(params, extra, image_keys(0, batch), chosen))

    def network(*noise: Array) -> Array:
        with given_noise(noise):
            return sample(params, extra, image_keys(0, batch), chosen)

    if not shapes:
        raise UserError(f"to=onnx: {stage.name} draws no normal noise; take stablehlo")
    convert, runtime = (_package(name) for name in ("jax2onnx", "onnxruntime"))
    given = [np.random.default_rng(i).normal(size=shape).astype(np.float32) for i, shape in enumerate(shapes)]
    inputs = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    with replacing(path) as temporary:
        try:
            convert.to_onnx(network, inputs=inputs, return_mode="file", output_path=str(temporary))
            session = runtime.InferenceSession(str(temporary))
            found = session.run(None, {each.name: value for each, value in zip(session.get_inputs(), given)})[0]
        except Exception as error:  # whatever the converter does not know
            reason = str(error).splitlines()[0][:150] if str(error) else type(error).__name__
            raise UserError(f"to=onnx: jax2onnx does not take {stage.name} ({reason}); take stablehlo") from error
        off = float(np.abs(found - np.asarray(network(*map(jnp.asarray, given)))).max())
        if not off <= CLOSE:
            raise UserError(f"to=onnx: images of {stage.name} differ by {off:.2g} in onnxruntime; take stablehlo")


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"to=onnx: needs {name}; pip install 'jgen[onnx]'") from error
