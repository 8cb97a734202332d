"""Every layer of a flow: its log-determinant is the autodiff Jacobian's, and its inverse goes back."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import glow as convert
from jgen.errors import UserError
from jgen.models.dequantizer import Dequantizer
from jgen.models.glow import Glow, Step
from jgen.models.tarflow import TarFlow
from jgen.nn.flow import NORMFLOWS, ORIGINAL, PORT, ActNorm, Coupling, Invertible1x1, halves, joined, squeeze, unsqueeze
from tests import tiny

KEY = jax.random.key(0)
NETS = NORMFLOWS._replace(hidden_norm="inward")
LAYERS = {
    **{f"actnorm {form}": ActNorm(form) for form in ("log", "plain", "outward", "inward")},
    **{f"1x1 lu={lu}": Invertible1x1(lu) for lu in (False, True)},
    **{
        f"coupling {c}": Coupling(3, True, v) for c, v in dict(original=ORIGINAL, port=PORT, flows=NORMFLOWS, nets=NETS).items()
    },
    **{f"coupling {m}": Coupling(3, True, NORMFLOWS, "channel_inv", m) for m in ("exp", "sigmoid_inv")},
    "coupling exp inward": Coupling(3, True, ORIGINAL, scale_map="exp"),
    **{f"additive {s}": Coupling(3, False, NORMFLOWS, s) for s in ("channel", "checkerboard", "checkerboard_inv")},
    "step": Step(3, lu=True),
}


def random_variables(net, x, scale=0.3):
    """Weights of a network away from their zeros and ones."""
    first = jax.random.normal(KEY, (64, *x.shape[1:]))
    variables = jax.tree.map(lambda v: v.astype(x.dtype), jax.jit(net.init)(KEY, first))
    return {**variables, "params": tiny.moved(variables["params"], scale)}


def check_flow(forward, inverse, x):
    """The log-determinants of forward [B] against the Jacobian's, and its inverse."""
    z, logdet = jax.jit(forward)(x)
    np.testing.assert_allclose(jax.jit(inverse)(z), x, atol=1e-4)
    jacobian = jax.jit(jax.jacobian(lambda one: forward(one[None])[0].ravel()))
    for i in range(len(x)):
        want = np.linalg.slogdet(np.asarray(jacobian(x[i]).reshape(x[i].size, -1)))[1]
        np.testing.assert_allclose(jnp.broadcast_to(logdet, (len(x),))[i], want, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYERS)
def test_log_determinants_and_inverses(name):
    with jax.enable_x64(True):
        net, x = LAYERS[name], jax.random.normal(KEY, (2, 4, 2, 3), jnp.float64)
        variables = random_variables(net, x)
        check_flow(lambda x: net.apply(variables, x), lambda z: net.apply(variables, z, method="inverse"), x)


@pytest.mark.slow
@pytest.mark.parametrize("convention", [ORIGINAL, PORT, NORMFLOWS])
def test_glow_is_a_density_and_goes_back_from_its_latents_and_its_noise(convention):
    with jax.enable_x64(True):
        net = Glow(2, 1, 3, True, (False, True), convention, classes=3, channels=2)
        x, label = jax.random.normal(KEY, (2, 4, 4, 2), jnp.float64), jnp.array([1, 2])
        variables = random_variables(net, x, 0.1)

        def forward(x):
            flow = net.apply(variables, x, label[: len(x)])
            return jnp.concatenate([z.reshape(len(x), -1) for z in flow.latents], 1), sum(flow.logdet)

        flow = jax.jit(net.apply)(variables, x, label)
        check_flow(forward, lambda z: net.apply(variables, flow.latents, label, normalized=False, method="inverse"), x)
        noise = jax.jit(partial(net.apply, method="noise_of"))(variables, x, label)
        assert [n.shape[1:] for n in noise] == net.latent_shapes((4, 4, 2))
        np.testing.assert_allclose(jax.jit(partial(net.apply, method="inverse"))(variables, noise, label), x, atol=1e-4)
        unit = sum(jnp.sum(-0.5 * n**2 - 0.5 * np.log(2 * np.pi), (1, 2, 3)) for n in noise)
        deviations = flow.total - unit - sum(flow.logdet)  # those of the priors
        assert np.all(np.isfinite(deviations))


@pytest.mark.slow
def test_tarflow_is_a_density_and_goes_back():
    with jax.enable_x64(True):
        net = TarFlow(channels=2, side=4, patch=2, width=8, blocks=2, layers=1, heads=2)
        x = jax.random.normal(KEY, (2, 4, 4, 2), jnp.float64)
        variables = random_variables(net, x, 0.1)

        def forward(x):
            z, logdet = net.apply(variables, x)
            return z, logdet * x[0].size  # the authors' is that of a dimension

        check_flow(forward, lambda z: net.apply(variables, z, method="inverse"), x)


@pytest.mark.slow
def test_variational_noise_has_the_density_that_it_says():
    with jax.enable_x64(True):
        net, x = Dequantizer(4, 2), jax.random.normal(KEY, (2, 4, 2, 1), jnp.float64)
        eps = jax.random.normal(jax.random.key(1), x.shape, jnp.float64)
        variables = {"params": tiny.moved(jax.jit(net.init)(KEY, eps, x)["params"], 0.2)}
        u, log_q = jax.jit(net.apply)(variables, eps, x)
        assert np.all((u > 0) & (u < 1))
        for i in range(len(x)):
            jacobian = jax.jacobian(lambda e, i=i: net.apply(variables, e[None], x[i : i + 1])[0].ravel())(eps[i])
            slope = np.linalg.slogdet(np.asarray(jacobian).reshape(eps[i].size, -1))[1]
            normal = np.sum(-0.5 * np.square(eps[i]) - 0.5 * np.log(2 * np.pi))
            np.testing.assert_allclose(log_q[i], normal - slope, rtol=1e-6)


def test_the_first_batch_comes_out_with_mean_0_and_deviation_1():
    x = 3 + 2 * jax.random.normal(KEY, (64, 4, 4, 3))
    for form in ("log", "plain", "outward", "inward"):
        (z, _), _ = ActNorm(form).init_with_output(KEY, x)
        np.testing.assert_allclose([jnp.mean(z, (0, 1, 2)), jnp.std(z, (0, 1, 2))], [np.zeros(3), np.ones(3)], atol=1e-3)


def test_splits_and_squeezes_lose_nothing():
    x = jax.random.normal(KEY, (2, 4, 6, 3))
    for mode in ("channel", "channel_inv", "checkerboard", "checkerboard_inv"):
        np.testing.assert_array_equal(joined(*halves(x, mode), mode), x)
    np.testing.assert_array_equal(unsqueeze(squeeze(x)), x)
    with pytest.raises(ValueError, match="image of 3x6: each squeeze halves the sides"):
        squeeze(x[:, :3])
    with pytest.raises(ValueError, match="levels=3: sides must be divisible by 8, not 28x28"):
        Glow(3).latent_shapes((28, 28, 1))


@pytest.mark.slow
def test_a_checkpoint_of_the_original_fills_every_weight():
    options = dict(n_levels=2, depth=1, width=3, n_y=4, image_size=4, flow_coupling=1, learntop=True, ycond=True)
    net = Glow(2, 1, 3, True, classes=4)
    shapes = jax.eval_shape(net.init, KEY, jnp.zeros((2, 4, 4, 3)))["params"]
    names = {v: k for k, v in convert.ORIGINAL_NAMES.items()}
    random, weights = np.random.default_rng(0), {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        keys = [p.key for p in path]
        if keys[0].startswith("blocks"):
            name = f"model/{keys[0][7:].replace('_', '/')}/{names['/'.join(keys[1:])]}"
        elif keys[1] == "conv":
            kind = {"kernel": "W", "bias": "b", "scale": "logs"}[keys[2]]
            name = f"model/{'pool0/conv' if keys[0] == 'priors_0' else 'prior/p'}/{kind}"
        else:
            name = f"model/prior/y_emb/{dict(weight='W', bias='b', scale='logs')[keys[1][6:]]}"
        weights[name + ":0"] = random.normal(size=leaf.shape).astype(np.float32)
    _, variables = convert.original({**weights, "beta1_power:0": np.ones(())}, **options, lr=0.1)
    assert jax.tree.map(jnp.shape, variables["params"]) == jax.tree.map(lambda s: s.shape, shapes)
    w = variables["params"]["blocks_0_0"]["mix"]["weight"]
    np.testing.assert_array_equal(w.T, weights["model/0/0/invconv/W:0"])  # theirs multiplies rows
    averages = {name.replace(":0", "/ExponentialMovingAverage:0"): 2 * array for name, array in weights.items()}
    counts = {name.replace(":0", "/local_step:0"): np.ones(()) for name in averages}
    both = {**weights, **averages, **counts}
    for average in (False, True):
        _, chosen = convert.original(both, **options, average=average)
        np.testing.assert_array_equal(chosen["params"]["blocks_0_0"]["mix"]["weight"], (1 + average) * w)
    with pytest.raises(UserError, match="average: the file holds weights and their averages; say which"):
        convert.original(both, **options)
    with pytest.raises(UserError, match="average=True: the file holds no averages"):
        convert.original(weights, **options, average=True)
    with pytest.raises(ValueError, match="flow_permutation=1: must be 2 here"):
        convert.original(weights, **options, flow_permutation=1)
    with pytest.raises(ValueError, match="widht: no option of Glow"):
        convert.original(weights, **options, widht=3)
