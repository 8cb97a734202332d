"""GAN losses, penalties and the arithmetic of their training against their authors' numbers."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
import pytest
from jax import lax

from jgen.objectives import gan, gan_conditional, gan_penalties
from jgen.train import lazy
from tests.oracle import Oracle, files

oracle = pytest.mark.oracle


class Double(Oracle):
    """An oracle whose arrays are float64."""

    def real(self, name):
        return jnp.asarray(self.nhwc(name) if self[name].ndim == 4 else self[name], jnp.float64)

    def weights(self):
        return {name: jnp.asarray(self[f"w/{name}"], jnp.float64) for name in self.under("w/")}


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
    o = Double(path)
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

    if "in/lecam_batch_means" in o:
        state, config, averages = gan.lecam_state(), o.config["lecam"], []
        for step, (a, b) in enumerate(o.real("in/lecam_batch_means")):
            state = gan.lecam_update(state, a[None], b[None], step, decay=config["decay"], start=config["start_iter"])
            averages.append(jnp.stack(state))
        o.check("out/lecam_ema", jnp.stack(averages))
        check("lecam_reg", partial(gan.lecam, state), "real", "fake")
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "conditional"))
def test_conditional_losses_and_gradients(path):
    o, c = Double(path), gan_conditional
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
    o.check_whole()


def labels(o):
    """Those of a file's images; None where it has none."""
    return jnp.asarray(o["in/labels"]) if "in/labels" in o else None


def activation(o):
    """The one that a file's discriminator has: "leaky" with its slope after a space or of 0.2, or a name of jax's."""
    name, *slope = o.config["act"].split()
    if name in ("leaky", "lrelu", "leaky_relu"):
        return partial(jax.nn.leaky_relu, negative_slope=float(slope[0]) if slope else 0.2)
    return partial(jax.nn.gelu, approximate=False) if name == "gelu" else getattr(jax.nn, name)


def discriminator(weights, label, act):
    """The oracles' discriminator of images [B, H, W, C], its weights in their own layout."""

    def apply(x):
        for i in range(1, 1 + sum(name.startswith("c") and name.endswith(".weight") for name in weights)):
            kernel, bias = weights[f"c{i}.weight"], weights[f"c{i}.bias"]
            x = lax.conv_general_dilated(x, kernel, (2, 2), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "OIHW", "NHWC"))
            x = act(x + bias[None, None, None])
        flat = jnp.moveaxis(x, -1, 1).reshape(len(x), -1)
        logits = flat @ weights["lin.weight"][0] + weights["lin.bias"]
        return logits * (1 + weights["emb.weight"][label, 0]) if label is not None else logits

    return apply


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "gradient_penalties"))
def test_gradient_penalties_and_their_gradients_by_the_weights(path):
    o, p = Double(path), gan_penalties
    weights, label, gamma = o.weights(), labels(o), o.config["r3gan_gamma"]
    real, fake, noise = o.real("in/real"), o.real("in/fake"), o.real("in/dragan_noise_uniform")
    alphas = o.real("in/alpha_uniform")
    mixed = alphas.reshape(-1, 1, 1, 1) * real + (1 - alphas.reshape(-1, 1, 1, 1)) * fake
    net = lambda w: discriminator(w, label, activation(o))  # noqa: E731

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
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "consistency"))
def test_consistency_terms_and_gradients(path):
    o, p = Double(path), gan_penalties
    label, scale = labels(o), o.config["weights"]
    x = {name: o.real(f"in/{name}") for name in ("real", "real_aug", "fake", "fake_aug", "fake_eps")}
    inputs = {**o.weights(), **x}
    net = lambda v: discriminator(v, label, activation(o))  # noqa: E731
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
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "orthogonal_reg"))
def test_orthogonal_regularisation(path):
    o = Double(path)
    theirs = o.weights()
    ours = {name: jnp.moveaxis(w, 0, -1) for name, w in theirs.items()}  # their outputs are first, a kernel's last
    strengths = sorted({name.split("/")[0] for name in o.under("out/modified/strength")}, key=float)
    for kind, diagonal in (("modified", False), ("default", True)):
        for strength in strengths:
            found = gan_penalties.orthogonal_gradient(ours, float(strength), diagonal=diagonal)
            for name in o.under(f"out/{kind}/strength{strength}/"):
                o.check(f"out/{kind}/strength{strength}/{name}", jnp.moveaxis(found[name], -1, 0))
    # That of the weights without the first one has the largest strength.
    skipped = gan_penalties.orthogonal_gradient(ours, float(strengths[-1]), skip=lambda path: path == "p0")
    for name in o.under("out/modified_blacklist_first/"):
        o.check(f"out/modified_blacklist_first/{name}", jnp.moveaxis(skipped[name], -1, 0))
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("stylegan2", "training_arithmetic"))
def test_lazy_adam_and_the_decay_of_the_average(path):
    o = Double(path)
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
    o.check_whole("out/ada/*")  # the controller's, of test_oracle_augment
