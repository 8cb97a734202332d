"""Depthwise convolution against XLA's own, with its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.nn.depthwise import depthwise


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, stride, shape", [(3, 1, (2, 6, 5, 3)), (3, 2, (2, 7, 6, 3)), (5, 2, (1, 8, 9, 2)), (5, 1, (1, 2, 2, 2))]
)
def test_depthwise_convolution_and_its_gradients(size, stride, shape):
    keys = jax.random.split(jax.random.key(0), 2)
    x, kernel = jax.random.normal(keys[0], shape), jax.random.normal(keys[1], (size, size, 1, shape[-1]))

    def plain(x, kernel):
        how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": shape[-1]}
        return lax.conv_general_dilated(x, kernel, (stride,) * 2, "SAME", **how)

    def results(call):
        first = lambda x, k: jnp.sum(jnp.sin(call(x, k)))  # noqa: E731
        second = lambda x, k: sum(jnp.sum(g**2) for g in jax.grad(first, (0, 1))(x, k))  # noqa: E731
        return call(x, kernel), jax.grad(first, (0, 1))(x, kernel), jax.grad(second, (0, 1))(x, kernel)

    ours, theirs = (jax.jit(lambda call=call: results(call))() for call in (lambda x, k: depthwise(x, k, stride), plain))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), ours, theirs)


@pytest.mark.parametrize("size,pads", [(3, (0, 1)), (5, (1, 2))])
def test_odd_sides_padded_as_even_ones(size, pads):
    x, kernel = jax.random.normal(jax.random.key(0), (2, 7, 9, 3)), jax.random.normal(jax.random.key(1), (size, size, 1, 3))
    how = {"dimension_numbers": ("NHWC", "HWIO", "NHWC"), "feature_group_count": 3}
    want = lax.conv_general_dilated(x, kernel, (2, 2), (pads, pads), **how)
    np.testing.assert_allclose(depthwise(x, kernel, 2, even=True), want, rtol=1e-4, atol=1e-5)
    even = x[:, :6, :8]
    np.testing.assert_array_equal(depthwise(even, kernel, 2, even=True), depthwise(even, kernel, 2))
