"""Colour spaces and gradient noise against scikit-image, Pillow, noise and opensimplex."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.dct import jpeg
from jgen.edit import colour, gradient_noise
from jgen.errors import UserError
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.mark.parametrize("path", files("image_ops", "colour"))
def test_colours(path):
    o = Oracle(path)
    suggested, pixels = o.meta["rtol_suggested"], jnp.asarray(o["in/rgb_u8"], jnp.float32)
    limit = suggested["skimage"] if isinstance(suggested, dict) else suggested
    rgb = pixels / 255
    for name in o.under("out/"):
        if found := re.fullmatch(r"rgb2(\w+)", name):
            o.check(f"out/{name}", jax.jit(getattr(colour, f"rgb_to_{found[1]}"))(rgb), limit)
        elif found := re.fullmatch(r"roundtrip_(\w+)2rgb", name):
            there = jax.jit(getattr(colour, f"rgb_to_{found[1]}"))(rgb)
            o.check(f"out/{name}", jax.jit(getattr(colour, f"{found[1]}_to_rgb"))(there), limit)
    o.check("out/srgb_to_linear", colour.linear(rgb), limit)
    np.testing.assert_allclose(colour.srgb(colour.linear(rgb)), rgb, atol=1e-6)
    levels = {
        "pil_L": jnp.sum(pixels * jnp.asarray(jpeg.TO_YCBCR[0], jnp.float32)[None, None], -1),
        "pil_YCbCr": jpeg.ycbcr(pixels),
        "pil_HSV": 255 * colour.rgb_to_hsv(rgb),
    }
    for name, value in levels.items():
        o.check_close(f"out/{name}", jnp.round(value), 0.0, 1.0)
    o.check_whole()


def test_black_and_grey_have_gradients():
    """The curves' corners are not met by 0 / 0."""
    for there in (colour.rgb_to_hsv, colour.rgb_to_lab, lambda x: colour.lab_to_rgb(colour.rgb_to_lab(x))):
        assert np.isfinite(jax.jit(jax.grad(lambda x, there=there: jnp.sum(there(x))))(jnp.zeros((2, 3)))).all()


OPTION = re.compile(r"_([a-z]+)([\d.]+)")
"""An option of noise, and its number, in the name of a result."""


@pytest.mark.parametrize("path", files("image_ops", "gradient_noise"))
def test_gradient_noise(path):
    o = Oracle(path)
    points = jnp.asarray(o["in/points"])
    for name in o.under("out/"):
        kind, dims, rest = re.fullmatch(r"(\w+?)_(\d)d((?:_[a-z]+[\d.]+)*)", name).groups()
        options = {option: float(number) if "." in number else int(number) for option, number in OPTION.findall(rest)}
        at = points[:, : int(dims)]
        if kind.startswith("opensimplex_seed"):
            seed = int(kind.removeprefix("opensimplex_seed"))
            o.check(f"out/{name}", gradient_noise.open_simplex(np.asarray(at), seed), o.meta["rtol_suggested"]["opensimplex"])
        else:
            at = jnp.abs(at) if "repeat" in options else at  # as the file's numbers are
            value = jax.jit(partial(getattr(gradient_noise, kind), **options))(at)
            o.check_close(f"out/{name}", value, 0.0, 1e-5)
    o.check_whole()


@pytest.mark.parametrize("noise", [gradient_noise.perlin, gradient_noise.simplex])
def test_octaves_are_sums_of_scaled_noise(noise):
    points = jax.random.uniform(jax.random.key(0), (20, 2), minval=-3, maxval=3)
    whole = noise(points, octaves=3, persistence=0.3, lacunarity=4.0)
    parts = [0.3**i * noise(points * 4**i) for i in range(3)]
    np.testing.assert_allclose(whole, sum(parts) / (1 + 0.3 + 0.09), atol=1e-5)
    shifted = gradient_noise.perlin(jnp.abs(points), base=3)
    np.testing.assert_allclose(shifted, gradient_noise.perlin(jnp.abs(points) + 3), atol=1e-5)


def test_bad_points_and_octaves_are_told_in_one_line():
    for call, match in (
        (lambda: gradient_noise.perlin(jnp.zeros((3, 4))), r"points: of shape \(3, 4\); must be"),
        (lambda: gradient_noise.simplex(jnp.zeros((3, 1))), r"points: of shape \(3, 1\); must be"),
        (lambda: gradient_noise.perlin(jnp.zeros((3, 2)), octaves=0), "octaves=0, repeat=1024: must be at least 1"),
        (lambda: gradient_noise.simplex(jnp.zeros((3, 2)), octaves=0), "octaves=0: must be at least 1"),
    ):
        with pytest.raises(UserError, match=match):
            call()
    assert sorted(gradient_noise.TABLE) == list(range(256))
