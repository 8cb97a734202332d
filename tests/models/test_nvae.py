"""NVAE's layers against closed forms, and its decoder against its posteriors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.models.nvae import NVAE, DownSkip, check_sides, latent_shapes, upsampled
from jgen.models.nvae_conv import Conv, normalized_kernel
from jgen.objectives.nvae import from_posteriors, from_priors, posterior_of, prior_of

pytestmark = pytest.mark.slow


def test_an_upsampled_ramp_is_a_ramp_between_the_same_corners():
    ramp = jnp.broadcast_to(jnp.arange(4.0)[None, :, None, None] + 10 * jnp.arange(4.0)[None, None, :, None], (2, 4, 4, 3))
    fine = np.linspace(0, 3, 8)
    expected = fine[:, None] + 10 * fine[None]
    np.testing.assert_allclose(upsampled(ramp)[1, ..., 2], expected, atol=1e-5)
    np.testing.assert_allclose(upsampled(jnp.full((1, 1, 1, 2), 5.0)), jnp.full((1, 2, 2, 2), 5.0))


def test_normalized_kernels_have_the_norms_that_they_learn():
    kernel, log_norm = jax.random.normal(jax.random.key(0), (3, 3, 4, 5)), jnp.log(jnp.arange(1.0, 6))
    sizes = jnp.sqrt(jnp.sum(normalized_kernel(kernel, log_norm) ** 2, (0, 1, 2)))
    np.testing.assert_allclose(sizes, jnp.arange(1.0, 6), rtol=1e-4)


def test_a_convolution_begins_almost_as_it_is_drawn():
    x = jax.random.normal(jax.random.key(1), (1, 4, 4, 6))
    params = Conv(5, 3).init(jax.random.key(0), x)["params"]
    plain = Conv(5, 3, plain=True).apply({"params": {"kernel": params["kernel"]}}, x)
    norms = jnp.sqrt(jnp.sum(params["kernel"] ** 2, (0, 1, 2)))
    factor = np.asarray((norms + 0.01) / (norms + 1e-5))
    np.testing.assert_allclose(Conv(5, 3).apply({"params": params}, x), np.asarray(plain) * factor, atol=1e-5)


def test_the_shortcut_down_sees_each_pixel_of_a_square_in_channels_of_its_own():
    net = DownSkip(8)
    x = jax.random.normal(jax.random.key(0), (1, 4, 4, 3))
    variables = net.init(jax.random.key(1), x)
    moved = net.apply(variables, x.at[0, 0, 1].add(1.0)) - net.apply(variables, x)  # row 0, column 1: the third
    assert np.all(np.abs(moved[0, 0, 0, 4:6]) > 0)
    assert np.count_nonzero(moved) == 2


def started(net):
    """(network, variables, three images of 8x8, noise of its groups)."""
    x = jax.random.uniform(jax.random.key(0), (3, 8, 8, 1), minval=-1, maxval=1)
    noise = [jax.random.normal(jax.random.key(i), (3, *shape)) for i, shape in enumerate(latent_shapes(net))]
    variables = jax.jit(lambda key: net.init(key, x, from_posteriors(noise)))(jax.random.key(1))
    return net, variables, x, noise


@pytest.fixture(scope="module")
def small():
    return started(NVAE(2, 8, 4, 2, (2, 1), 1, 1, 1, 1))


def test_the_decoder_of_the_posteriors_latents_gives_the_same_outputs(small):
    net, variables, x, noise = small
    assert latent_shapes(net) == [(2, 2, 2), (4, 4, 2), (4, 4, 2)]
    outputs, groups = net.apply(variables, x, from_posteriors(noise))
    z = [posterior_of(group).sample(n) for group, n in zip(groups, noise)]
    again, above = net.apply(variables, lambda k, group: z[k], 3, method="decode")
    np.testing.assert_allclose(again, outputs, atol=1e-5)
    for one, other in zip(groups, above):
        assert other.residual is None
        np.testing.assert_allclose(one.prior[0], other.prior[0], atol=1e-5)
    np.testing.assert_allclose(prior_of(groups[0]).deviation, 1.01)  # exp(0) + 0.01, as the authors' code has it


def test_a_temperature_scales_the_deviations_and_0_gives_the_means(small):
    net, variables, _, noise = small
    _, groups = net.apply(variables, from_priors(noise), 3, method="decode")
    top = from_priors(noise, 0.5)(0, groups[0])
    np.testing.assert_allclose(top, 0.5 * 1.01 * noise[0], rtol=1e-5)
    outputs = [net.apply(variables, from_priors(n, 0.0), 3, method="decode")[0] for n in (noise, [2 * n for n in noise])]
    np.testing.assert_allclose(*outputs)


def test_statistics_move_in_training_alone(small):
    net, variables, x, noise = small
    _, state = net.apply(variables, x, from_posteriors(noise), True, mutable=["batch_stats"])
    moved = [np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (state["batch_stats"], variables["batch_stats"])))]
    assert np.mean(moved) > 0.9
    _, state = net.apply(variables, from_priors(noise), 3, None, True, method="decode", mutable=["batch_stats"])
    before = variables["batch_stats"]["pre_0"]
    jax.tree.map(np.testing.assert_array_equal, state["batch_stats"]["pre_0"], before)


@pytest.mark.parametrize("side,groups", [(12, (1, 1, 1)), (8, ())])
def test_sides_that_do_not_halve_are_refused(side, groups):
    with pytest.raises(UserError, match=f"groups=.*: a side of {side} must divide by"):
        check_sides(NVAE(2, side, 4, 2, groups))
