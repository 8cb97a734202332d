"""The flows of NVAE's posteriors: what each variable sees, and the Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.models.nvae import NVAE
from jgen.models.nvae_conv import causal_mask, effective_kernel, kernel_name
from jgen.models.nvae_flow import Flow, FlowStep
from jgen.objectives.nvae import from_posteriors, from_priors, kl_of, matrices, posterior_of, prior_of
from tests import tiny
from tests.models.test_nvae import started

pytestmark = pytest.mark.slow

SIDE, LATENTS = 4, 2
Z = jax.random.normal(jax.random.key(0), (1, SIDE, SIDE, LATENTS))


def jacobian(module, mirrored=False):
    """d outputs / d inputs in the order of a step: pixels in raster order, or from the last one, then channels."""
    # Far from the start, where shifts are nearly 0.
    moved = tiny.moved(jax.jit(module.init, static_argnums=2)(jax.random.key(1), Z, jnp.float32), 0.5)
    found = jax.jit(jax.jacobian(lambda z: module.apply(moved, z, jnp.float32)))(Z).reshape(SIDE**2, LATENTS, SIDE**2, LATENTS)
    found = found[::-1, :, ::-1] if mirrored else found
    return np.asarray(found).reshape(SIDE**2 * LATENTS, -1)


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_variable_moves_by_those_before_it_alone(mirrored):
    found = jacobian(FlowStep(mirrored), mirrored)
    np.testing.assert_array_equal(np.triu(found, 1), 0)
    np.testing.assert_array_equal(np.diag(found), 1)
    near = [found[LATENTS * (SIDE + 2) + 1, LATENTS * p + c] for p, c in ((SIDE + 2, 0), (SIDE + 1, 1), (1, 0), (0, 1))]
    assert np.all(np.abs(near) > 1e-4)


def test_a_flow_keeps_the_density():
    found = jacobian(Flow())
    assert np.any(np.abs(np.triu(found, 1)) > 1e-4)
    assert np.any(np.abs(np.tril(found, -1)) > 1e-4)
    sign, log_determinant = np.linalg.slogdet(found.astype(np.float64))
    assert sign == 1
    assert abs(log_determinant) < 1e-5


def test_masks_of_channels_go_by_blocks():
    strict = causal_mask((3, 3, 2, 4), "strict")
    np.testing.assert_array_equal(strict[1, 1], [[0, 0, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(causal_mask((1, 1, 4, 2), "causal")[0, 0], [[1, 1], [1, 1], [0, 1], [0, 1]])
    rows = [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    np.testing.assert_array_equal(strict[:, :, 1, 0], rows)
    np.testing.assert_array_equal(causal_mask((3, 3, 2, 4), "strict_mirrored")[:, :, 1, 0], np.flip(rows))
    np.testing.assert_array_equal(causal_mask((3, 3, 1, 4), "causal")[1, 1], 1)


def test_the_regularisation_sees_a_kernel_as_it_is_masked():
    kernel, log_norm = jax.random.normal(jax.random.key(0), (3, 3, 2, 4)), jnp.zeros(4)
    layer = {kernel_name("strict"): kernel, "log_norm": log_norm}
    np.testing.assert_allclose(jnp.sum(jnp.square(effective_kernel(layer)), (0, 1, 2)), 1, rtol=1e-4)
    gradient = jax.grad(lambda kernel: jnp.sum(matrices({"a": {**layer, kernel_name("strict"): kernel}})["4x18"]))(kernel)
    np.testing.assert_array_equal(np.asarray(gradient)[causal_mask(kernel.shape, "strict") == 0], 0)


@pytest.fixture(scope="module")
def network():
    return started(NVAE(2, 8, 4, 2, (1, 1), 1, 1, 1, 1, flows=2))


def test_flows_move_the_posteriors_latents_and_leave_the_priors(network):
    net, variables, x, noise = network
    outputs, groups = net.apply(variables, x, from_posteriors(noise))
    params = variables["params"]
    for k, (group, n) in enumerate(zip(groups, noise)):
        np.testing.assert_allclose(group.drawn, posterior_of(group).sample(n), atol=1e-6)
        z = group.drawn
        for i in range(2):
            z = Flow().apply({"params": params[f"flow_{k}_{i}"]}, z, jnp.float32)
        np.testing.assert_allclose(group.latents, z, atol=1e-5)
        assert float(jnp.max(jnp.abs(z - group.drawn))) > 1e-4
    latents = [group.latents for group in groups]
    again, above = net.apply(variables, lambda k, group: latents[k], 3, method="decode")
    np.testing.assert_allclose(again, outputs, atol=1e-5)
    _, above = net.apply(variables, from_priors(noise), 3, method="decode")
    np.testing.assert_allclose(above[0].latents, 1.01 * noise[0], rtol=1e-5)
    assert above[0].drawn is None


def test_the_kl_with_flows_is_the_gap_of_log_densities_at_the_draw(network):
    net, variables, x, noise = network
    _, groups = net.apply(variables, x, from_posteriors(noise))
    group = groups[1]
    expected = posterior_of(group).log_prob(group.drawn) - prior_of(group).log_prob(group.latents)
    np.testing.assert_allclose(kl_of(group), expected, atol=1e-5)
    # Where flows move nothing, its mean over draws is the closed form.
    wide = group._replace(
        features=None, prior=tuple(v[None] for v in group.prior), residual=tuple(v[None] for v in group.residual)
    )
    z = posterior_of(wide).sample(jax.random.normal(jax.random.key(3), (4000, *group.drawn.shape)))
    estimate = jnp.mean(kl_of(wide._replace(drawn=z, latents=z)), 0)
    np.testing.assert_allclose(estimate, kl_of(wide._replace(drawn=None))[0], atol=0.1)
