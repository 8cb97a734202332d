"""The convolution whose gradients are written out: against the compiler's own derivatives, and in the body of a loop."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.nn.plain import DIMENSIONS, Conv, convolve, convolve_transposed

X = jax.random.normal(jax.random.key(0), (2, 7, 6, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 2, 3, 4))


def second_order(conv, x, kernel):
    """Values, gradients, and gradients of a function of the gradients."""

    def loss(x, kernel):
        return jnp.sum(jnp.sin(conv(x, kernel)))

    def of_gradients(x, kernel):
        return sum(jnp.sum(jnp.cos(g)) for g in jax.grad(loss, (0, 1))(x, kernel))

    return jax.jit(lambda *a: (conv(*a), jax.grad(loss, (0, 1))(*a), jax.grad(of_gradients, (0, 1))(*a)))(x, kernel)


def close(got, want):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), got, want)


@pytest.mark.parametrize("padding", ["SAME", "VALID", ((1, 2), (0, 1)), ((3, 3), (2, 2))])
@pytest.mark.parametrize("stride", [1, 2, (1, 3)])
def test_derivatives_are_those_of_the_compiler_s_convolution(stride, padding):
    strides = stride if isinstance(stride, tuple) else (stride, stride)

    def theirs(x, kernel):
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=DIMENSIONS)

    close(second_order(lambda x, k: convolve(x, k, stride, padding), X, KERNEL), second_order(theirs, X, KERNEL))


@pytest.mark.parametrize("padding", [((2, 2), (2, 2)), ((1, 1), (1, 4))])
def test_so_are_those_of_the_transposed_one(padding):
    def theirs(x, kernel):
        turned = kernel[::-1, ::-1]
        return lax.conv_general_dilated(x, turned, (1, 1), padding, lhs_dilation=(2, 2), dimension_numbers=DIMENSIONS)

    close(second_order(lambda x, k: convolve_transposed(x, k, padding), X, KERNEL), second_order(theirs, X, KERNEL))


@pytest.mark.parametrize(
    "options", [{}, {"padding": 1, "strides": 2}, {"kernel_dilation": 2, "padding": 2}, {"feature_group_count": 3}]
)
def test_the_layer_is_flax_s(options):
    theirs, ours = (kind(6, (3, 3), **options) for kind in (nn.Conv, Conv))
    variables = theirs.init(jax.random.key(2), X)
    loss = [jax.value_and_grad(lambda v, net=net: jnp.sum(jnp.sin(net.apply(v, X))))(variables) for net in (ours, theirs)]
    close(*loss)


def test_no_gradient_in_a_loop_is_left_to_the_compiler_s_slow_order():
    """A gradient's gradient too. The compiler moves axes into the fast order (b01f_01io) outside of loops alone."""
    kernel = KERNEL[:, :, :, :3]

    def inner(x, kernel):
        return jnp.sum(jnp.tanh(convolve(x, kernel, 1, "SAME")) ** 2)

    def outer(kernel):
        def step(x, _):
            return x - 0.1 * jax.grad(inner)(x, kernel), None

        return jnp.sum(lax.scan(step, X, None, length=5)[0] ** 2)

    program = jax.jit(jax.grad(outer)).lower(kernel).compile().as_text()
    orders = set(re.findall(r"convolution\(.*?dim_labels=(\w+->\w+)", program))
    assert orders == {"b01f_01io->b01f"}
