"""GAN losses, penalties and the arithmetic of their training: golden numbers, and cases solved by hand."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from jgen.errors import UserError
from jgen.objectives import gan, gan_conditional, gan_penalties
from jgen.train import lazy
from tests.oracle import Oracle, files

oracle = pytest.mark.oracle


class Tracked(Oracle):
    """An oracle of which nothing may be left out; its arrays are float64."""

    def __init__(self, path):
        super().__init__(path)
        self.left = {name for name in self.names if name.startswith("out/")}

    def check(self, name, value, rtol=None, image=False):
        super().check(name, value, rtol, image)
        self.left.discard(name)

    def real(self, name):
        return jnp.asarray(self.nhwc(name) if self[name].ndim == 4 else self[name], jnp.float64)

    def weights(self):
        return {name[2:]: jnp.asarray(self[name], jnp.float64) for name in self.names if name.startswith("w/")}

    def done(self, but=()):
        left = {name for name in self.left if not name.startswith(tuple(but) or "-")}
        assert not left, f"not compared: {sorted(left)}"


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


LOSSES = {
    "vanilla": gan.non_saturating,
    "logistic": gan.non_saturating,
    "ls": gan.least_squares,
    "hinge": gan.hinge,
    "wasserstein": gan.wasserstein,
}
AVERAGES = {
    "ra_sgan": gan.relativistic_average,
    "ra_lsgan": gan.relativistic_average_least_squares,
    "ra_hinge": gan.relativistic_average_hinge,
}


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "adversarial"))
def test_adversarial_losses_and_gradients(path):
    o = Tracked(path)
    real, fake = o.real("in/real_logits"), o.real("in/fake_logits")

    def check_gradients(name, loss, *sides):
        by = dict(zip(("real", "fake"), jax.grad(loss, (0, 1))(real, fake)))
        for side in sides:
            o.check(f"out/grad/{name}/{side}", by[side])

    def check(name, loss, *sides):
        """loss(real, fake), and its gradients by the named sides."""
        o.check(f"out/{name}", loss(real, fake))
        check_gradients(name, loss, *sides)

    for name, law in LOSSES.items():
        check(f"d_{name}", law.d, "real", "fake")
        check(f"g_{name}", lambda r, f, law=law: law.g(f, r), "fake")
    check("g_minimax_saturating", lambda r, f: gan.minimax.g(f, r), "fake")
    assert gan.minimax.d(real, fake) == gan.non_saturating.d(real, fake)
    for name, law in AVERAGES.items():
        check(f"{name}_d", law.d, "real", "fake")
        check(f"{name}_g", lambda r, f, law=law: law.g(f, r), "real", "fake")

    sure = jnp.full_like(real, 1e4)  # of a side that the discriminator is sure of nothing is left
    for name, law in (("hinge", gan.hinge), ("dcgan", gan.non_saturating)):
        o.check(f"out/biggan_{name}_real", law.d(real, -sure))
        o.check(f"out/biggan_{name}_fake", law.d(sure, fake))

    pairs = gan.relativistic_paired
    o.check("out/rp_d", jnp.stack([pairs.d(r[None], f[None]) for r, f in zip(real, fake)]))
    o.check("out/rp_g", jnp.stack([pairs.g(f[None], r[None]) for r, f in zip(real, fake)]))
    check_gradients("rp_d_mean", pairs.d, "real", "fake")
    check_gradients("rp_g", lambda r, f: pairs.g(f, r), "fake")
    o.check("out/topk_half", gan.top_k(fake, len(fake) // 2))

    state, config, averages = gan.lecam_state(), o.config["lecam"], []
    for step, (a, b) in enumerate(o.real("in/lecam_batch_means")):
        state = gan.lecam_update(state, a[None], b[None], step, decay=config["decay"], start=config["start_iter"])
        averages.append(jnp.stack(state))
    o.check("out/lecam_ema", jnp.stack(averages))
    check("lecam_reg", partial(gan.lecam, state), "real", "fake")
    o.done()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "conditional"))
def test_conditional_losses_and_gradients(path):
    o, c = Tracked(path), gan_conditional
    k, temperature, m_p = o.config["classes"], o.config["temperature"], o.config["m_p"]
    real, fake, embed, proxies = (o.real(f"in/{n}") for n in ("logits_2K_real", "logits_2K_fake", "embed", "class_proxies"))
    y, y_fake = jnp.asarray(o["in/labels_real"]), jnp.asarray(o["in/labels_fake"])

    def check(name, loss, **inputs):
        value, gradients = jax.jit(jax.value_and_grad(lambda inputs: loss(*inputs)))(tuple(inputs.values()))
        o.check(f"out/{name}", value)
        for key, gradient in zip(inputs, gradients):
            if f"out/grad/{name}/{key}" in o:
                o.check(f"out/grad/{name}/{key}", gradient)

    check("ac_cross_entropy_real", lambda x: c.cross_entropy(x, y), logits=real[:, :k])
    for kind, d, g in (("", c.cross_entropy, c.cross_entropy), ("_original_hinge", c.classes_hinge, c.classes_margin)):
        check(f"adc_d{kind}", lambda r, f, d=d: c.adc_d(r, y, f, y_fake, d), logits_real=real, logits_fake=fake)
        check(f"adc_g{kind}", lambda f, g=g: c.adc_g(f, y_fake, g), logits_fake=fake)
    check("tac_g", lambda a, m: c.tac_g(a, m, y_fake), ac_logits=fake[:, :k], mi_logits=fake[:, k:])
    check("mh_crammer_singer", lambda x: c.multi_hinge(x, y), logits=real[:, : k + 1])

    unit = lambda x: x / jnp.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    for kind, prepare in (("raw", lambda x: x), ("normalised", unit)):
        both = lambda e, p, prepare=prepare: (prepare(e), prepare(p[y]), y, temperature)  # noqa: E731
        check(f"contrastive_2c_{kind}", lambda e, p, b=both: c.contrastive_2c(*b(e, p)), embed=embed, class_proxies=proxies)
        check(f"d2dce_{kind}", lambda e, p, b=both: c.d2d_ce(*b(e, p), m_p), embed=embed, class_proxies=proxies)

    linear = o.real("in/projection_linear")
    logit = lambda h, p: c.projection(h, p[y], h @ linear[0])  # noqa: E731
    o.check("out/projection_logit", logit(embed, proxies))
    hinge = lambda h, p: gan.hinge.d(logit(h, p), jnp.full(len(h), -1e4))  # noqa: E731
    check("projection_hinge_real", hinge, h=embed, class_proxies=proxies)

    check("feature_matching", lambda e: c.feature_matching(o.real("in/embed_fake"), e), embed=embed)
    mu, var = o.real("in/info_mu"), o.real("in/info_var")
    check("info_normal_nll", partial(c.normal_nll, o.real("in/info_x")), mu=mu, var=var)
    o.done()


def discriminator(weights, label, act):
    """The oracles' discriminator of images [B, H, W, C], its weights in their own layout."""

    def apply(x):
        for name in ("c1", "c2"):
            kernel, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
            x = lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "OIHW", "NHWC"))
            x = act(x + bias[None, None, None])
        flat = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        logits = flat @ weights["lin.weight"][0] + weights["lin.bias"]
        return logits * (1 + weights["emb.weight"][label, 0])

    return apply


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "gradient_penalties"))
def test_gradient_penalties_and_their_gradients_by_the_weights(path):
    o, p = Tracked(path), gan_penalties
    weights, label, gamma = o.weights(), jnp.asarray(o["in/labels"]), o.config["r3gan_gamma"]
    real, fake, noise = o.real("in/real"), o.real("in/fake"), o.real("in/dragan_noise_uniform")
    alphas = o.real("in/alpha_uniform")
    mixed = alphas.reshape(-1, 1, 1, 1) * real + (1 - alphas.reshape(-1, 1, 1, 1)) * fake
    net = lambda w: discriminator(w, label, jax.nn.softplus)  # noqa: E731

    def check(name, loss, value=True):
        found, gradient = jax.jit(jax.value_and_grad(lambda w: loss(net(w))))(weights)
        if value:
            o.check(f"out/{name}", found)
        for key in weights:
            if f"out/grad/{name}/{key}" in o:
                o.check(f"out/grad/{name}/{key}", gradient[key])

    check("wgan_gp", lambda d: p.gradient_penalty(d, real, fake, alphas))
    check("wgan_gp_original_mixing", lambda d: p.gradient_penalty(d, real, fake, 1 - alphas))
    check("dragan", lambda d: p.dragan(d, real, alphas, noise))
    check("max_gp", lambda d: p.max_gp(d, mixed))
    check("r1_half", lambda d: p.r1(d, real))
    check("r1_stylegan", lambda d: p.r1(d, real))
    check("r2_half", lambda d: p.r2(d, fake))

    d = net(weights)
    o.check("out/logits_real", d(real))
    o.check("out/logits_fake", d(fake))
    o.check("out/r3gan_d/relativistic_logits", d(real) - d(fake))
    each = [gan.relativistic_paired.d(r[None], f[None]) for r, f in zip(d(real), d(fake))]
    o.check("out/r3gan_d/adv_loss_per_sample", jnp.stack(each))
    for name, images in (("zero_centred_per_sample", real), ("d/r1_per_sample", real), ("d/r2_per_sample", fake)):
        o.check(f"out/r3gan_{name}", p.squared_gradient_norms(d, images))

    def step(d):
        return gan.relativistic_paired.d(d(real), d(fake)) + p.r1(d, real, gamma) + p.r2(d, fake, gamma)

    check("r3gan_d_step", step, value=False)
    o.done()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "consistency"))
def test_consistency_terms_and_gradients(path):
    o, p = Tracked(path), gan_penalties
    label, scale = jnp.asarray(o["in/labels"]), o.config["weights"]
    x = {name: o.real(f"in/{name}") for name in ("real", "real_aug", "fake", "fake_aug", "fake_eps")}
    inputs = {**o.weights(), **x}
    net = lambda v: discriminator(v, label, partial(jax.nn.leaky_relu, negative_slope=0.2))  # noqa: E731
    for name, images in x.items():
        o.check(f"out/logit_{name}", net(inputs)(images))

    def check(name, loss):
        value, gradient = jax.jit(jax.value_and_grad(lambda v: loss(lambda n: net(v)(v[n]), v)))(inputs)
        o.check(f"out/{name}", value)
        for key in inputs:
            if f"out/grad/{name}/{key}" in o:
                o.check(f"out/grad/{name}/{key}", gradient[key], image=key in x)

    check("cr", lambda d, v: p.cr(d("real"), d("real_aug"), scale["cr"]))
    both = {"weight_real": scale["bcr_real"], "weight_fake": scale["bcr_fake"]}
    check("bcr", lambda d, v: p.bcr(d("real"), d("real_aug"), d("fake"), d("fake_aug"), **both))
    check("zcr_d", lambda d, v: p.zcr_d(d("fake"), d("fake_eps"), scale["zcr_d"]))
    check("zcr_g", lambda d, v: p.zcr_g(v["fake"], v["fake_eps"], scale["zcr_g"]))
    o.done()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "orthogonal_reg"))
def test_orthogonal_regularisation(path):
    o = Tracked(path)
    theirs = o.weights()
    ours = {name: jnp.moveaxis(w, 0, -1) for name, w in theirs.items()}  # their outputs are first, a kernel's last
    for kind, diagonal in (("modified", False), ("default", True)):
        for strength in (1e-4, 0.3):
            found = gan_penalties.orthogonal_gradient(ours, strength, diagonal=diagonal)
            for name, gradient in found.items():
                o.check(f"out/{kind}/strength{strength}/{name}", jnp.moveaxis(gradient, -1, 0))
    skipped = gan_penalties.orthogonal_gradient(ours, 0.3, skip=lambda path: path == "p0")
    for name in ("p0", "p1"):
        o.check(f"out/modified_blacklist_first/{name}", jnp.moveaxis(skipped[name], -1, 0))
    o.done()


@oracle
@pytest.mark.parametrize("path", files("stylegan2", "training_arithmetic"))
def test_lazy_adam_and_the_decay_of_the_average(path):
    o = Tracked(path)
    plain, config = o.config["lazy"], o.config["adam"]
    b1, b2 = plain["betas"]
    for player in "GD":
        rate, *betas = lazy.lazy_rates(plain["lr"], b1, b2, plain[f"{player}_reg_interval"])
        o.check(f"out/lazy/{player}_lr", rate)
        o.check(f"out/lazy/{player}_betas", betas)

    k, theta, after = config["k"], o.real("in/adam/theta0"), []
    b1, b2 = config["betas"]
    adam = lazy.lazy_adam(config["lr"], b1, b2, config["eps"], k)
    state = adam.init(theta)
    for step, gradient in enumerate(o.real("in/adam/grad_main")):
        todo = [gradient] if step % k else [gradient, k * o.real("in/adam/grad_reg")[step // k]]
        for gradient in todo:
            updates, state = adam.update(gradient, state)
            theta = jax.tree.map(jnp.add, theta, updates)
            after.append(theta)
    o.check("out/adam/theta_after_each_update", jnp.stack(after))

    ema, p, average = o.config["ema"], o.real("in/ema/p"), o.real("in/ema/p_ema")
    decay = lazy.ema_decay(ema["batch_size"], ema["ema_kimg"], ema["ema_rampup"])
    decays = decay(jnp.asarray(o["in/ema/cur_nimg"] // ema["batch_size"]))
    o.check("out/ema/beta", decays)
    o.check("out/ema/p_ema_after_each_beta", jax.vmap(lambda d: optax.incremental_update(p, average, 1 - d))(decays))
    o.done(but=["out/ada/"])


def test_losses_at_the_optimal_discriminator_of_two_coins():
    p, q = np.array([3, 1]), np.array([1, 3])
    loss = lambda law, table: law.d(jnp.repeat(table, p), jnp.repeat(table, q))  # noqa: E731
    best = jnp.log(p / q)
    js = np.log(2) + 0.75 * np.log(0.75) + 0.25 * np.log(0.25)
    np.testing.assert_allclose(loss(gan.minimax, best), 2 * np.log(2) - 2 * js, rtol=1e-12)
    for law, table in ((gan.minimax, best), (gan.least_squares, jnp.asarray(p / (p + q)))):
        np.testing.assert_allclose(jax.grad(partial(loss, law))(table), 0, atol=1e-12)


def test_the_saturating_generator_alone_learns_nothing_from_a_sure_discriminator():
    sure, real = jnp.full(4, -20.0), jnp.full(4, 20.0)
    assert np.abs(jax.grad(gan.minimax.g)(sure, real)).max() < 1e-8
    for law in (gan.non_saturating, gan.hinge, gan.wasserstein, gan.relativistic_paired):
        np.testing.assert_allclose(jax.grad(law.g)(sure, real), -0.25, rtol=1e-6)


def test_relativistic_losses_see_differences_only():
    real, fake = jnp.array([0.3, -1.0, 2.0]), jnp.array([-0.5, 0.1, 0.7])
    for law in (gan.relativistic_paired, *AVERAGES.values()):
        np.testing.assert_allclose(law.d(real + 5, fake + 5), law.d(real, fake), rtol=1e-12)
        np.testing.assert_allclose(law.g(real, fake), law.d(real, fake), rtol=1e-12)  # sides swapped
    with pytest.raises(UserError, match="paired"):
        gan.relativistic_paired.d(real, fake[:1])


def test_lecam_forgets_what_was_before_its_start_and_carries_no_gradient():
    real, fake = jnp.array([1.0, 3.0]), jnp.array([-1.0, 0.0])
    first = gan.lecam_update(gan.LeCam(jnp.array(9.0), jnp.array(9.0)), real, fake, 0)
    np.testing.assert_allclose(first, (2.0, -0.5))
    np.testing.assert_allclose(gan.lecam_update(first, real + 1, fake, 1, decay=0.75), (2.25, -0.5))
    np.testing.assert_allclose(gan.lecam(first, real, fake), np.mean([1.5**2, 3.5**2]) + np.mean([3.0**2, 2.0**2]))
    assert not jax.grad(lambda r: gan.lecam_update(first, r, fake, 1).real)(real).any()


SLOPE = np.random.default_rng(0).normal(size=(6, 5, 3))
IMAGES = np.random.default_rng(1).normal(size=(2, 4, 6, 5, 3))


def linear(w):
    return lambda x: jnp.einsum("bhwc,hwc->b", x, w)


def test_penalties_of_a_linear_critic():
    p, w, (real, fake) = gan_penalties, jnp.asarray(SLOPE), jnp.asarray(IMAGES)
    alphas, norm = jnp.linspace(0, 1, 4), np.linalg.norm(SLOPE)
    for loss in (
        lambda w: p.gradient_penalty(linear(w), real, fake, alphas),
        lambda w: p.dragan(linear(w), real, alphas, jnp.abs(fake)),
    ):
        np.testing.assert_allclose(loss(w), (norm - 1) ** 2, rtol=1e-12)
        np.testing.assert_allclose(jax.grad(loss)(w), 2 * (1 - 1 / norm) * SLOPE, rtol=1e-12)
        assert loss(0 * w) == 1
        assert not jax.grad(loss)(0 * w).any()  # a flat critic: no direction is better, and none is NaN
    np.testing.assert_allclose(p.max_gp(linear(w), real), norm**2)
    for penalty in (p.r1, p.r2):
        np.testing.assert_allclose(penalty(linear(w), real, 3.0), 1.5 * norm**2, rtol=1e-12)
        np.testing.assert_allclose(jax.grad(lambda w, r=penalty: r(linear(w), real, 3.0))(w), 3 * SLOPE, rtol=1e-12)
    np.testing.assert_allclose(p.drift(jnp.array([3.0, 1.0])), 0.005)


def test_the_penalty_on_fakes_does_not_train_the_generator():
    square = lambda x: jnp.sum(x**4, axis=(1, 2, 3))  # noqa: E731
    assert not jax.grad(lambda x: gan_penalties.r2(square, x))(jnp.asarray(IMAGES[0])).any()


def test_path_length_of_a_linear_generator():
    noise, mean, decay = jnp.asarray(IMAGES[0]), jnp.array(0.5), 0.25
    layers = jnp.asarray(np.random.default_rng(2).normal(size=(3, 7, *SLOPE.shape)))  # [L, D, H, W, C]
    ws = jnp.ones((4, 3, 7))

    def run(scale, mean=mean):
        return gan_penalties.path_length(lambda ws: scale * jnp.einsum("bld,ldhwc->bhwc", ws, layers), ws, noise, mean, decay)

    penalty, lengths, new = run(1.0)
    slopes = np.einsum("ldhwc,bhwc->bld", layers, noise) / np.sqrt(6 * 5)
    by_hand = np.sqrt(np.mean(np.sum(slopes**2, 2), 1))
    np.testing.assert_allclose(lengths, by_hand, rtol=1e-12)
    np.testing.assert_allclose(new, 0.75 * 0.5 + 0.25 * by_hand.mean(), rtol=1e-12)
    np.testing.assert_allclose(penalty, (by_hand - new) ** 2, rtol=1e-12)
    gradient = jax.grad(lambda scale: jnp.sum(run(scale)[0]))(1.0)
    through_mean = np.sum(2 * (by_hand - new) * (by_hand - decay * by_hand.mean()))
    np.testing.assert_allclose(gradient, through_mean, rtol=1e-10)
    assert jax.grad(lambda scale: run(scale)[2])(1.0) == 0
    assert np.isfinite(jax.grad(lambda scale: jnp.sum(run(scale)[0]))(0.0))


def test_clipping_and_orthogonality():
    params = {"embedding": jnp.eye(2, 3), "dense": {"kernel": jnp.eye(3, 2), "bias": jnp.array([0.005, -7.0])}}
    clipped = gan_penalties.clip_weights(params, 0.01)
    np.testing.assert_array_equal(clipped["dense"]["bias"], [0.005, -0.01])
    for diagonal in (False, True):  # rows of all matrices are orthonormal: those of the table, the columns of the kernel
        assert gan_penalties.orthogonal(params, diagonal=diagonal) == 0
    turned = {"embedding": jnp.ones((2, 3)), "kernel": jnp.ones((3, 2))}
    np.testing.assert_allclose(gan_penalties.orthogonal(turned, 1.0), 0.5 * 2 * 2 * 3**2)
    with pytest.raises(UserError, match="c=0"):
        gan_penalties.clip_weights(params, 0)


def test_class_losses_of_orthonormal_embeddings():
    embed, label, n, t = jnp.eye(4, 6), jnp.arange(4), 4, 0.5
    value = gan_conditional.contrastive_2c(embed, embed, label, t)
    np.testing.assert_allclose(value, np.log(1 + (n - 1) * np.exp(-1 / t)), rtol=1e-12)
    np.testing.assert_allclose(gan_conditional.d2d_ce(embed, embed, label, t), np.log(n), rtol=1e-12)
    one = jnp.zeros(4, int)  # of one class there are positives alone
    np.testing.assert_allclose(gan_conditional.contrastive_2c(embed, embed, one, t), 0, atol=1e-12)
    np.testing.assert_allclose(gan_conditional.d2d_ce(embed, embed, one, t), 0, atol=1e-12)
    assert np.isfinite(jax.grad(lambda e: gan_conditional.contrastive_2c(e, embed, label, t))(0 * embed)).all()


def test_hinges_over_classes_are_zero_once_the_label_leads_by_one():
    logits, label = jnp.array([[3.0, 1.9, 0.0], [0.0, 1.0, 3.5]]), jnp.array([0, 2])
    for law in (gan_conditional.classes_hinge, gan_conditional.multi_hinge):
        assert law(logits, label) == 0
    np.testing.assert_allclose(gan_conditional.multi_hinge(logits, jnp.array([1, 1])), np.mean([1 + 1.1, 1 + 2.5]))
    np.testing.assert_allclose(gan_conditional.classes_margin(logits, label), -np.mean([1.1, 3.0, 3.5, 2.5]))


def test_lazy_rates_keep_the_pace_of_the_main_updates():
    rate, b1, b2 = lazy.lazy_rates(0.002, 0.5, 0.99, 4)
    np.testing.assert_allclose((5 * rate, b1**5, b2**5), (4 * 0.002, 0.5**4, 0.99**4), rtol=1e-12)
    decay = lazy.ema_decay(32, 10.0, rampup=None)
    np.testing.assert_allclose(decay(jnp.array(3)) ** (10_000 / 32), 0.5, rtol=1e-9)
    ramped = lazy.ema_decay(32, 10.0, rampup=0.1)
    np.testing.assert_allclose(ramped(jnp.array(1000)) ** 100, 0.5, rtol=1e-9)
    assert ramped(jnp.array(0)) == 0


@pytest.mark.parametrize(
    "call, match",
    [
        (lambda: gan.top_k(jnp.zeros(3), 4), "k=4"),
        (lambda: gan.lecam_update(gan.lecam_state(), jnp.zeros(2), jnp.zeros(2), 0, start=0), "start=0"),
        (lambda: gan_conditional.adc_g(jnp.zeros((2, 5)), jnp.zeros(2, int)), "even"),
        (lambda: gan_conditional.d2d_ce(jnp.eye(2), jnp.eye(2), jnp.arange(2), temperature=0), "temperature=0"),
        (lambda: lazy.lazy_adam(1e-3, interval=0), "interval=0"),
        (lambda: lazy.ema_decay(32, kimg=0), "kimg=0"),
    ],
)
def test_errors_name_what_would_be_right(call, match):
    with pytest.raises(UserError, match=match):
        call()
