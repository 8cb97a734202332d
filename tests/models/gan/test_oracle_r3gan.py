"""R3GAN's networks, initial scales, losses, steps and schedules against the authors', in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jgen import convert
from jgen.convert.r3gan import path_of
from jgen.models.gan.r3gan import Discriminator, Generator, resampling_kernel
from jgen.nn.fir import downsample2d, upsample2d
from jgen.objectives import gan, gan_penalties
from jgen.train.rates import half_cosine
from tests.models.whole import official_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def real(o, name):
    return jnp.asarray(o.nhwc(name) if o[name].ndim == 4 else o[name], float)


def trainable(weights):
    return {k: v for k, v in weights.items() if not k.endswith(".Kernel")}


@pytest.mark.parametrize("path", [*files("r3gan", "generator"), *files("r3gan", "discriminator")])
def test_networks(path):
    o = Oracle(path)
    make = convert.r3gan.generator if "NoiseDimension" in o.config else convert.r3gan.discriminator
    weights = convert.load_weights(path)
    net, variables = make(weights, **o.config)
    inputs = [real(o, f"in/{name}") for name in ("x", "y") if f"in/{name}" in o]

    @jax.jit
    def run(params, inputs):
        out, seen = net.apply({"params": params}, *inputs, capture_intermediates=True)
        out = getattr(out, "logits", out)
        return jnp.sum(out * real(o, "in/cotangent")), (out, seen["intermediates"])

    (_, (out, seen)), (by_params, by_inputs) = jax.value_and_grad(run, (0, 1), has_aux=True)(variables["params"], inputs)
    o.check("out/image" if out.ndim == 4 else "out/logits", out, image=out.ndim == 4)
    for name in (n for n in o.names if n.startswith("out/MainLayers.")):
        value = seen[path_of(name.removeprefix("out/") + ".Basis")[0]]["__call__"][0]
        o.check(name, value, image=value.ndim == 4)
    for name, grad in zip("xy", by_inputs):
        o.check(f"out/grad/{name}", grad, image=grad.ndim == 4)
    own = trainable(weights)
    found = official_gradients(lambda w: make(w, **o.config)[1], own, by_params, [n for n in own if f"out/grad/{n}" in o])
    for name, grad in found.items():
        o.check(f"out/grad/{name}", grad)
    if "out/grad_sum_logits_wrt_x" in o:
        total = lambda x: jnp.sum(net.apply(variables, x, *inputs[1:]).logits)  # noqa: E731
        o.check("out/grad_sum_logits_wrt_x", jax.grad(total)(inputs[0]), image=True)
    o.check_whole()


@pytest.mark.parametrize("path", files("r3gan", "resamplers"))
def test_resamplers(path):
    o = Oracle(path)
    for name in o.config:
        kernel, x = resampling_kernel(o[f"in/{name}/filter"]), real(o, f"in/{name}/x")
        o.check(f"out/{name}/kernel", kernel)
        for kind, resample in (("up", upsample2d), ("down", downsample2d)):
            y, pull = jax.vjp(lambda x, resample=resample, kernel=kernel: resample(x, kernel), x)
            o.check(f"out/{name}/{kind}", y, image=True)
            o.check(f"out/{name}/grad_{kind}_x", pull(real(o, f"in/{name}/cotangent_{kind}"))[0], image=True)
    o.check_whole()


FIELDS = {
    "WidthPerStage": "widths", "CardinalityPerStage": "groups", "BlocksPerStage": "blocks", "ExpansionFactor": "expansion",
    "NoiseDimension": "z_dim", "ConditionDimension": "classes", "ConditionEmbeddingDimension": "embedding",
    "KernelSize": "size", "ResamplingFilter": "taps",
}  # fmt: skip


@pytest.mark.parametrize("path", files("r3gan", "init_scales"))
def test_initial_scales(path):
    """The formula's deviation of each parameter is in the file; here fresh weights are measured against it."""
    with jax.enable_x64(False):
        check_initial_scales(Oracle(path))


def check_initial_scales(o):
    for name, config in o.config["networks"].items():
        own = {FIELDS[k]: tuple(v) if isinstance(v, list) else v or 0 for k, v in config.items() if k != "kind"}
        net = (Generator if config["kind"] == "G" else Discriminator)(**own)
        side = 2 << len(net.widths)
        x = jnp.zeros((1, net.z_dim) if config["kind"] == "G" else (1, side, side, 3), jnp.float32)
        label = [jnp.zeros((1, net.classes), jnp.float32)] if net.classes else []
        params = jax.jit(net.init)(jax.random.key(0, impl="rbg"), x, *label)["params"]
        o.check(f"out/{name}/num_params", sum(leaf.size for leaf in jax.tree.leaves(params)), rtol=1e-12)
        measured, names = [], [str(n) for n in o[f"out/{name}/names"]]
        for official in names:
            leaf = params
            for part in path_of(official):
                leaf = leaf[part]
            measured.append((leaf.size, float(jnp.sqrt(jnp.mean(leaf**2)))))
        counts, sizes = np.array(measured).T
        o.check(f"out/{name}/count", o.config["draws"] * counts, rtol=1e-12)
        assert [int(np.prod(shape[shape > 0])) for shape in o[f"out/{name}/shape"]] == counts.tolist()
        for kind, draws in (("std_formula", np.inf), ("rms_measured", o.config["draws"])):
            want = o[f"out/{name}/{kind}"]
            assert ((sizes == 0) == (want == 0)).all()
            assert (np.abs(sizes - want) <= 5 * want * np.sqrt((1 + 1 / draws) / (2 * counts))).all(), kind
        o.checked |= {f"out/{name}/{kind}" for kind in ("std_formula", "rms_measured", "names", "shape")}
    o.check_whole()


@pytest.mark.parametrize("path", files("r3gan", "schedules"))
def test_schedules(path):
    o = Oracle(path)
    images, batch = jnp.asarray(o["in/cur_nimg"], float), float(o["in/batch_size"])
    names = {
        "base_value": "base", "final_value": "final", "total_nimg": "total", "warmup_value": "low", "warmup_nimg": "warmup",
        "hold_base_value_nimg": "hold",
    }  # fmt: skip
    for preset, kinds in o.config.items():
        for kind, config in ({"": kinds} if "base_value" in kinds else kinds).items():
            values = half_cosine(images, **{names[k]: v for k, v in config.items()})
            o.check("/".join(filter(None, ("out", preset, kind))), values)
            if f"out/{preset}/{kind}_beta" in o:
                o.check(f"out/{preset}/{kind}_beta", 0.5 ** (batch / jnp.maximum(values, 1e-8)))
    o.check_whole()


class Players:
    """Both networks of a file, and their losses as the authors compute them; every term is one number an image."""

    def __init__(self, o):
        self.official = {p: trainable(o.weights(p)) for p in "GD"}
        makes = {"G": convert.r3gan.generator, "D": convert.r3gan.discriminator}
        self.place = {p: lambda w, p=p: makes[p](w, **o.config[p])[1] for p in "GD"}
        (self.g, g), (self.d, d) = (makes[p](self.official[p], **o.config[p]) for p in "GD")
        self.params = {"G": g["params"], "D": d["params"]}

    def logits(self, params, x, y, augment):
        return self.d.apply({"params": params}, augment(x), *y).logits

    def fake(self, params, z, y):
        return self.g.apply({"params": params}, z, *y)

    def d_loss(self, params, fake, x, y, gamma, augment):
        logits = lambda x: self.logits(params, x, y, augment)  # noqa: E731
        fake_logits, real_logits = logits(fake), logits(x)
        r1, r2 = (gan_penalties.squared_gradient_norms(logits, images) for images in (x, fake))
        found = {
            "logits_fake": fake_logits, "logits_real": real_logits, "relativistic_logits": real_logits - fake_logits,
            "adversarial": jax.nn.softplus(fake_logits - real_logits), "r1": r1, "r2": r2,
        }  # fmt: skip
        whole = gan.relativistic_paired.d(real_logits, fake_logits)
        whole += gan_penalties.r1(logits, x, gamma) + gan_penalties.r2(logits, fake, gamma)
        return whole, found

    def g_loss(self, params, d_params, z, x, y, augment):
        fake, true = (self.logits(d_params, images, y, augment) for images in (self.fake(params, z, y), x))
        found = {"relativistic_logits": fake - true, "adversarial": jax.nn.softplus(true - fake)}
        return gan.relativistic_paired.g(fake, true), found


def stand_in(x):
    """The file's preprocessor."""
    return 0.75 * jnp.roll(x[:, :, ::-1], 1, 1) + 0.125


@pytest.mark.parametrize("path", files("r3gan", "loss_step"))
def test_losses_and_steps(path):
    o = Oracle(path)
    rtol = o.meta["rtol_suggested"]["losses_and_grads"]
    play = Players(o)
    y = lambda p: [real(o, f"in/{p}/y")] if f"in/{p}/y" in o else []  # noqa: E731
    d_loss = jax.jit(jax.value_and_grad(play.d_loss, has_aux=True), static_argnames="augment")
    g_loss = jax.jit(jax.value_and_grad(play.g_loss, has_aux=True), static_argnames="augment")
    scale = float(o["in/scale"])

    def check(prefix, player, value, found, grads):
        for kind, each in found.items():
            if f"{prefix}/{kind}" in o:
                o.check(f"{prefix}/{kind}", each, rtol)
        if f"{prefix}/loss_mean" in o:
            o.check(f"{prefix}/loss_mean", scale * value, rtol)
        names = [n.removeprefix(f"{prefix}/grad/") for n in o.names if n.startswith(f"{prefix}/grad/")]
        official = official_gradients(play.place[player], play.official[player], grads, names) if names else {}
        for name, grad in official.items():
            o.check(f"{prefix}/grad/{name}", scale * grad, rtol)

    for variant in o.config["variants"]:
        augment = {"plain": lambda x: x, "aug": stand_in}[variant]
        fake = play.fake(play.params["G"], real(o, "in/D/z"), y("D"))
        o.check(f"out/{variant}/D/fake", fake, rtol, image=True)
        gamma = float(o["in/gamma"])
        (value, found), grads = d_loss(play.params["D"], fake, real(o, "in/D/real"), y("D"), gamma, augment=augment)
        check(f"out/{variant}/D", "D", value, found, grads)
        given = play.params["D"], real(o, "in/G/z"), real(o, "in/G/real"), y("G")
        (value, found), grads = g_loss(play.params["G"], *given, augment=augment)
        check(f"out/{variant}/G", "G", value, found, grads)

    if "steps" in o.config:
        check_steps(o, play, d_loss, g_loss, check, y)
    o.check_whole()


def check_steps(o, play, d_loss, g_loss, check, y):
    """The steps of both players and of the average, one after the other."""
    plan, same, atol = o.config["steps"], lambda x: x, 1e-5

    def adam():
        rates = (jnp.asarray(plan[k], float) for k in ("lr", "beta2"))
        rate, beta2 = (lambda count, row=row: row[count] for row in rates)
        return optax.inject_hyperparams(optax.adam)(learning_rate=rate, b1=0.0, b2=beta2, eps=1e-8)

    params, average = dict(play.params), play.params["G"]
    optimizers = {p: adam() for p in "GD"}
    states = {p: optimizers[p].init(params[p]) for p in "GD"}
    for k in range(plan["steps"]):
        for player in "DG":
            z, x = (real(o, f"in/steps/{k}/{player}/{kind}") for kind in ("z", "real"))
            if player == "D":
                fake = play.fake(params["G"], z, y("D"))
                (value, found), grads = d_loss(params["D"], fake, x, y("D"), plan["gamma"][k], augment=same)
            else:
                (value, found), grads = g_loss(params["G"], params["D"], z, x, y("G"), augment=same)
            check(f"out/steps/{k}/{player}", player, value, found, grads)
            updates, states[player] = optimizers[player].update(grads, states[player], params[player])
            params[player] = optax.apply_updates(params[player], updates)
        beta = 0.5 ** (o.config["N"] / max(plan["ema_nimg"][k], 1e-8))
        o.check(f"out/steps/{k}/ema_beta", beta)
        average = optax.incremental_update(params["G"], average, 1 - beta)
    for name, player, end in (("G", "G", params["G"]), ("D", "D", params["D"]), ("G_ema", "G", average)):
        own = play.official[player]
        for official, value in official_gradients(play.place[player], own, end, list(own)).items():
            full = f"out/steps/end/{name}/{official}"
            assert np.abs(value - o[full]).max() <= atol, full
            o.checked.add(full)
