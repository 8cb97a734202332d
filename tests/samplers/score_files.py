"""Arrays of the files of score models."""

import jax.numpy as jnp
import numpy as np

CAPTURE = dict(capture_intermediates=True, mutable=["intermediates"])


def image(o, name):
    return jnp.asarray(o.nhwc(name))


def double(o, name):
    """An array in float64: of images, channels last."""
    array = o.nhwc(name) if o[name].ndim == 4 else o[name]
    return jnp.asarray(array.astype(np.float64) if array.dtype.kind == "f" else array)


def results(o, prefix):
    """What follows `prefix` in the names of the file's results that begin so."""
    return [n.removeprefix(prefix) for n in o.names if n.startswith(prefix)]
