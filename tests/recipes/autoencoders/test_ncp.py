"""The noise contrastive prior of NVAE and of a plain VAE: its stages, samplers and refusals."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jgen.config import DataConfig
from jgen.config.nvae import NCPConfig, NCPSampling
from jgen.data import resolve
from jgen.errors import UserError
from jgen.models.nvae import NVAE
from jgen.recipes.autoencoders import ncp, nvae
from jgen.samplers import image_keys
from jgen.train.step import make_step
from tests import tiny
from tests.shapes import by_shape

pytestmark = pytest.mark.slow
X = jax.random.uniform(jax.random.key(5), (4, 8, 8, 1), minval=-1, maxval=1)


def stages(*flags):
    return tiny.module("ncp_vae").build(tiny.parsed("ncp_vae", *flags)).stages


@pytest.fixture(scope="module")
def hierarchical():
    first, second = stages("--sampling.proposals", "3", "--sampling.steps", "2")
    params, extra = jax.jit(second.init)(jax.random.key(0), {"image": X})
    # Ratios begin at 1, where every method is the prior; others are wanted here.
    params = {**params, "ncp": tiny.moved(params["ncp"], 0.2)}
    return first, second, params, extra


@pytest.mark.parametrize("method", ["sir", "langevin", "prior"])
def test_an_image_depends_on_its_key_alone(hierarchical, method):
    _, second, params, extra = hierarchical
    sample = jax.jit(second.sample, static_argnums=3)
    options = replace(second.options, method=method)
    three = sample(params, extra, image_keys(0, 3), options)
    np.testing.assert_allclose(sample(params, extra, image_keys(0, 2, 1), options), three[1:], atol=1e-5)


def test_the_base_prior_is_that_of_the_first_stage_with_its_decoder(hierarchical):
    first, second, params, extra = hierarchical
    options = replace(second.options, method="prior")
    images = jax.jit(second.sample, static_argnums=3)(params, extra, image_keys(0, 500), options)
    own = jax.jit(first.sample, static_argnums=3)({"net": params["net"]}, extra, image_keys(1, 500), first.options)
    np.testing.assert_allclose(jnp.mean(images, 0), jnp.mean(own, 0), atol=0.1)


def test_the_second_stage_takes_the_network_and_its_statistics_over(hierarchical):
    first, second, *fresh = hierarchical
    state = jax.jit(first.init)(jax.random.key(9), {"image": X})
    found, state_after = second.begin(*state, *fresh)
    jax.tree.map(np.testing.assert_array_equal, found["net"], state[0]["net"])
    jax.tree.map(np.testing.assert_array_equal, found["ncp"], fresh[0]["ncp"])
    assert set(state_after) == {"net"}
    with pytest.raises(UserError, match="nvae: not the network that the prior begins from"):
        second.begin({"net": {}}, state[1], *fresh)


def test_latents_in_units_of_the_prior_are_the_posteriors(hierarchical):
    _, _, params, extra = hierarchical
    config = tiny.parsed("ncp_vae")
    model = nvae.Model(config.network, resolve(config.data))
    found = jax.jit(ncp.of_nvae(model).posteriors)(params, extra, jax.random.key(0), X)
    noise = [jax.random.normal(jax.random.fold_in(jax.random.key(0), i), (4, *s)) for i, s in enumerate(model.shapes)]
    _, groups, _ = jax.jit(lambda params, extra: model.apply(params, extra, X, nvae.from_posteriors(noise), False))(
        params, extra
    )
    for latents, group in zip(found, groups):
        prior = ncp.prior_of(group)
        np.testing.assert_allclose(prior.mean + prior.deviation * latents.e, group.latents, atol=1e-4)
        assert group.drawn is not None  # the tiny network has a flow


def test_statistics_are_read_again_from_images_at_the_temperature(hierarchical):
    _, _, params, extra = hierarchical
    config = tiny.parsed("ncp_vae")
    model = nvae.Model(config.network, resolve(config.data))
    options = NCPSampling(temperature=0.3, statistics="reread", passes=3, pass_size=4)
    again = jax.jit(model.reread, static_argnums=2)(params, extra, options)
    assert np.any(again["net"]["post_0"]["norm_0"]["mean"] != extra["net"]["post_0"]["norm_0"]["mean"])
    jax.tree.map(np.testing.assert_array_equal, again["net"]["pre_0"], extra["net"]["pre_0"])  # the encoder's stay
    assert model.reread(params, extra, NCPSampling()) is extra


class Gaussian:
    """A backbone of one group whose posteriors' latents are N(1, 0.5^2)."""

    @staticmethod
    def posteriors(params, extra, key, x):
        return [ncp.Latents(1 + 0.5 * jax.random.normal(key, (len(x), 2)), None)]


def test_classifiers_of_known_gaussians_find_their_ratio_and_the_samplers_their_moments():
    backbone = ncp.Backbone([(2,)], Gaussian.posteriors, lambda *_: X)
    first, _ = stages("--base", "vae")
    optimizer = replace(tiny.module("ncp_vae").Config().optimizer, warmup=20, learning_rate=5e-3)
    stage = ncp.stage(NCPConfig(400, 32, 1), first, backbone, optimizer, NCPSampling())
    batch = {"image": jnp.zeros((512, 8, 8, 1))}
    state = stage.create(jax.random.key(0), batch)
    step = make_step(stage.phases, stage.optimizers, stage.ema)
    state = jax.jit(lambda s: lax.scan(lambda s, _: (step(s, jax.random.key(1), batch)[0], None), s, length=400)[0])(state)
    ratios = ncp.Ratios(NCPConfig(400, 32, 1), backbone)
    e = 1 + jax.random.normal(jax.random.key(2), (500, 2))
    e = e[jnp.all(jnp.abs(e - 1) < 1, 1)]
    exact = jnp.sum(-0.5 * ((e - 1) / 0.5) ** 2 + 0.5 * e**2, 1) - 2 * np.log(0.5)
    found = ratios.log_ratio(state.averaged["ncp"], 0, None)(e)
    assert float(jnp.mean(jnp.abs(found - exact))) < 0.25
    normal = ncp.Normal(jnp.zeros((4000, 2)), jnp.ones((4000, 2)))

    @partial(jax.jit, static_argnums=1)
    def draw(weights, options):
        return ncp.chooser(ratios, weights, image_keys(0, 4000), options)(0, None, normal)

    for method in ("sir", "langevin"):
        z = draw(state.averaged["ncp"], NCPSampling(method=method, proposals=100, steps=100, step_size=0.02))
        np.testing.assert_allclose(jnp.mean(z, 0), 1.0, atol=0.1)
        np.testing.assert_allclose(jnp.std(z, 0), 0.5, atol=0.1)


def test_refusals():
    with pytest.raises(UserError, match="vae.network.kind=plain: has no prior to improve"):
        stages("--base", "vae", "--vae.network.kind", "plain")
    config = tiny.parsed("ncp_vae").network
    with pytest.raises(UserError, match="mixture is a likelihood of the 8-bit values themselves"):
        nvae.Model(replace(config, likelihood="mixture"), DataConfig(dequantize=True, shape=(8, 8, 1)))
    with pytest.raises(UserError, match="image of 8x4: NVAE takes squares"):
        nvae.Model(config, DataConfig(shape=(8, 4, 1)))
    with pytest.raises(UserError, match="a side of 6 must divide by 4"):
        nvae.Model(config, DataConfig(shape=(6, 6, 1)))
    _, second = stages("--base", "vae")
    with pytest.raises(UserError, match="statistics=reread: a plain VAE has no batch normalisation"):
        jax.eval_shape(
            lambda key: second.sample(*second.init(key, {"image": X}), image_keys(0, 2), NCPSampling(statistics="reread")),
            jax.random.key(0),
        )


def test_every_likelihood_has_a_network_and_a_loss():
    config = tiny.parsed("ncp_vae")
    for kind in ("mixture", "gaussian", "bernoulli"):
        network = replace(config.network, likelihood=kind)
        model = nvae.Model(network, DataConfig(shape=(8, 8, 1)))
        assert isinstance(model.net, NVAE)
        assert model.law.outputs == {"mixture": 30, "gaussian": 2, "bernoulli": 1}[kind]
        by_shape(tiny.module("ncp_vae"), replace(config, network=network), losses=True, samples=True)
