"""LPIPS of files, and with SqueezeNet."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import feature_nets
from jgen.errors import UserError
from jgen.metrics.lpips import open_lpips
from jgen.models.perceptual import FIRE_CHANNELS, SCALE, SHIFT
from tests import tiny
from tests.metrics.toy import images


def test_lpips_of_files(tmp_path):
    files = tiny.lpips_files(tmp_path)
    run, weights = open_lpips(*files)
    distance = jax.jit(run)
    a, b = (jnp.asarray(images(3, seed, (16, 16, 3)) / np.float32(127.5) - 1) for seed in (0, 1))
    np.testing.assert_allclose(distance(weights, a, b), distance(weights, b, a), rtol=1e-5)
    np.testing.assert_allclose(distance(weights, a, a), 0, atol=1e-7)
    nearer = distance(weights, a, 0.5 * (a + b))
    assert (nearer > 0).all()
    assert (nearer < distance(weights, a, b)).all()
    grey = [x[..., :1] for x in (a, b)]
    in_colour = [jnp.repeat(x, 3, -1) for x in grey]
    np.testing.assert_allclose(distance(weights, *grey), distance(weights, *in_colour), rtol=1e-5)
    with pytest.raises(UserError, match="images of 8x8 are too small for this network"):
        distance(weights, a[:, :8, :8], b[:, :8, :8])
    with pytest.raises(UserError, match="heads: LPIPS needs both"):
        open_lpips(files[0], "")
    with pytest.raises(UserError, match=r"missing lin0.model.1.weight"):
        open_lpips(files[0], files[0])


def lpips_of_squeezenet(rng):
    """Weights by LPIPS's names of a narrow SqueezeNet: {name: float32 array}."""
    weights, inputs = {}, 3

    def add(name, shape):
        weights[f"{name}.weight"] = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
        weights[f"{name}.bias"] = 0.1 * rng.normal(size=shape[0])

    add("net.slice1.0", (5, 3, 3, 3))
    inputs, widths = 5, [5]
    for i, index in enumerate(FIRE_CHANNELS):
        at, (squeezed, ones, threes) = f"net.slice{2 + i // 2}.{index}", (2 + i % 2, 2, 3 + i % 3)
        add(f"{at}.squeeze", (squeezed, inputs, 1, 1))
        add(f"{at}.expand1x1", (ones, squeezed, 1, 1))
        add(f"{at}.expand3x3", (threes, squeezed, 3, 3))
        inputs = ones + threes
        widths += [inputs] * (index not in (3, 6))
    for i, width in enumerate(widths):
        weights[f"lin{i}.model.1.weight"] = rng.uniform(size=(1, width, 1, 1))
    return {name: value.astype(np.float32) for name, value in weights.items()}


def squeezenet_taps(weights, x):
    """LPIPS's seven taps of images [B, H, W, 3], step by step in numpy."""
    found = {name.split(".", 2)[2]: value for name, value in weights.items() if name.startswith("net.")}

    def conv(x, name, rim=0, stride=1):
        kernel = found[f"{name}.weight"]
        size = kernel.shape[-1]
        x = np.pad(x, ((0, 0), (rim, rim), (rim, rim), (0, 0)))
        patches = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))[:, ::stride, ::stride]
        return np.maximum(np.einsum("bhwcij,ocij->bhwo", patches, kernel) + found[f"{name}.bias"], 0)

    def pooled(x):  # the last window of each side may be cut off by one
        x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
        starts = [range(0, side - 2, 2) for side in x.shape[1:3]]
        return np.stack([np.stack([x[:, i : i + 3, j : j + 3].max((1, 2)) for j in starts[1]], 1) for i in starts[0]], 1)

    taps = [conv(x, "0", stride=2)]
    x = taps[0]
    for index in FIRE_CHANNELS:
        x = conv(pooled(x) if index in (3, 6, 9) else x, f"{index}.squeeze")
        x = np.concatenate([conv(x, f"{index}.expand1x1"), conv(x, f"{index}.expand3x3", 1)], -1)
        taps += [x] if index not in (3, 6) else []
    return taps


@pytest.mark.parametrize("side", [38, 41])
def test_lpips_with_squeezenet_and_without_scaled_colours(side):
    weights = lpips_of_squeezenet(np.random.default_rng(0))
    a, b = (images(2, seed, (side, 33, 3)).astype(np.float64) / 127.5 - 1 for seed in (0, 1))
    net, variables = feature_nets.lpips(weights, "0.0")
    taps = [[x / (np.linalg.norm(x, axis=-1, keepdims=True) + 1e-10) for x in squeezenet_taps(weights, y)] for y in (a, b)]
    squares = [np.square(x - y).mean((1, 2)) for x, y in zip(*taps, strict=True)]
    want = sum(square @ weights[f"lin{i}.model.1.weight"].ravel() for i, square in enumerate(squares))
    np.testing.assert_allclose(net.apply(variables, jnp.asarray(a), jnp.asarray(b)), want, rtol=1e-4)
    scaled = [jnp.asarray(x * np.array(SCALE) + np.array(SHIFT)) for x in (a, b)]
    np.testing.assert_allclose(feature_nets.lpips(weights)[0].apply(variables, *scaled), want, rtol=1e-4)
    with pytest.raises(UserError, match="version=0.2: must be 0.0 or 0.1 here"):
        feature_nets.lpips(weights, "0.2")
    with pytest.raises(UserError, match="missing features.4.squeeze.bias of SqueezeNet 1.1"):
        feature_nets.lpips({k: v for k, v in weights.items() if k != "net.slice2.4.squeeze.bias"})
