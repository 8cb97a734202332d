"""The tiny perceptual network that golden numbers of projector/ and pti/ were computed with."""

import jax
import jax.numpy as jnp
import numpy as np


def features(o):
    """Images [B, H, W, C] in [-1, 1] -> [B, F], of the weights w/feature.* and the README of the file's family."""

    def conv(x, name):
        kernel = jnp.asarray(o[f"w/feature.{name}.weight"].transpose(2, 3, 1, 0))
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return jnp.tanh(y + o[f"w/feature.{name}.bias"][None, None, None])

    def run(x):
        taps = []
        for i in range(sum(n.startswith("w/feature.conv") and n.endswith("weight") for n in o.names)):
            if i:
                x = x.reshape(len(x), x.shape[1] // 2, 2, x.shape[2] // 2, 2, -1).mean((2, 4))
            x = conv(x, f"conv{i}")
            unit = x / (jnp.linalg.norm(x, axis=-1, keepdims=True) + 1e-10)
            scaled = unit * jnp.sqrt(o[f"w/feature.lin{i}"])[None, None, None] / np.sqrt(x.shape[1] * x.shape[2])
            taps.append(scaled.transpose(0, 3, 1, 2).reshape(len(x), -1))
        return jnp.concatenate(taps, 1)

    return run
