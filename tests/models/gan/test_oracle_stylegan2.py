"""StyleGAN2's operators, networks and losses against NVIDIA's."""

import jax
import jax.numpy as jnp
import pytest

from jgen import convert
from jgen.models.gan import stylegan2
from jgen.nn import equalized, fir
from jgen.objectives import gan, gan_penalties, stylegan
from tests.oracle import Oracle, files, find

pytestmark = pytest.mark.oracle


def nhwc(o, name):
    return jnp.asarray(o.nhwc(name))


def hwio(o, name):
    return jnp.asarray(o[name].transpose(2, 3, 1, 0))


@pytest.mark.parametrize("path", files("stylegan2", "ops_setup_filter"))
def test_filters(path):
    o = Oracle(path)
    for name, config in o.config.items():
        config = dict(config)
        if "flip_filter" in config:
            config["flip"] = config.pop("flip_filter")
        o.check(f"out/{name}", fir.setup_filter(config.pop("f"), **config))


OPS = {"upfirdn2d": fir.upfirdn2d, "filter2d": fir.filter2d, "upsample2d": fir.upsample2d, "downsample2d": fir.downsample2d}


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_upfirdn2d"))
def test_resampling(path):
    o = Oracle(path)
    x = nhwc(o, "in/x")
    for name, config in o.config.items():
        config = dict(config)
        op = OPS[config.pop("op")]
        if "flip_filter" in config:
            config["flip"] = config.pop("flip_filter")
        f = o[f"in/{name}/f"] if f"in/{name}/f" in o else None
        y, pull = jax.vjp(lambda x, op=op, f=f, config=config: op(x, f, **config), x)
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", pull(nhwc(o, f"in/{name}/cotangent"))[0], image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_conv2d_resample"))
def test_resampling_convolutions(path):
    o = Oracle(path)
    x = nhwc(o, "in/x")
    for name, config in o.config.items():
        config = {k: v for k, v in config.items() if k != "k"}
        f = o[f"in/{name}/f"] if f"in/{name}/f" in o else None
        call = lambda x, w, f=f, config=config: fir.conv2d_resample(x, w, f, **config)  # noqa: E731
        y, pull = jax.vjp(call, x, hwio(o, f"in/{name}/w"))
        by_x, by_w = pull(nhwc(o, f"in/{name}/cotangent"))
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", by_x, image=True)
        o.check(f"out/{name}/grad_w", by_w.transpose(3, 2, 0, 1))
        if name == "up2_3":
            o.check(f"out/{name}/y", fir.upsample_conv(x, hwio(o, f"in/{name}/w")), rtol=3e-5, image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_bias_act"))
def test_activations(path):
    o = Oracle(path)
    for name, config in o.config.items():
        config, act = dict(config), name.split("/")[0]
        axis = config.pop("dim", None)
        given = [jnp.asarray(o["in/x"])] + ([] if axis is None else [jnp.asarray(o[f"in/b_dim{axis}"])])

        def call(x, b=None, axis=axis, act=act, config=config):
            x = x if axis is None else jnp.moveaxis(x, axis, -1)
            y = equalized.bias_act(x, b, act, **config)
            return y if axis is None else jnp.moveaxis(y, -1, axis)

        y, pull = jax.vjp(call, *given)
        grads = pull(jnp.asarray(o["in/cotangent"]))
        o.check(f"out/{name}/y", y)
        for kind, grad in zip("xb", grads):
            o.check(f"out/{name}/grad_{kind}", grad)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_minibatch_std"))
def test_minibatch_standard_deviation(path):
    o = Oracle(path)
    for name, c in o.config.items():
        call = lambda x, c=c: equalized.minibatch_std(x, c["group_size"], c["num_channels"])  # noqa: E731
        y, pull = jax.vjp(call, nhwc(o, f"in/{name}/x"))
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", pull(nhwc(o, f"in/{name}/cotangent"))[0], image=True)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_modulated_conv2d"))
def test_modulated_convolution(path):
    o = Oracle(path)
    x, styles = nhwc(o, "in/x"), jnp.asarray(o["in/styles"])
    for name, c in o.config.items():
        if c.get("down"):
            continue  # no network of the paper modulates and shrinks
        w, cotangent = hwio(o, f"in/{name}/w"), nhwc(o, f"in/{name}/cotangent")
        noise = nhwc(o, f"in/{name}/noise") if c.get("noise") else 0.0

        def call(x, w, s, c=c, noise=noise):
            return equalized.modulated_conv(x, w, s, up=c.get("up", 1), demodulate=c.get("demodulate", True)) + noise

        y, pull = jax.vjp(call, x, w, styles)
        by_x, by_w, by_s = pull(cotangent)
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", by_x, image=True)
        o.check(f"out/{name}/grad_w", by_w.transpose(3, 2, 0, 1))
        o.check(f"out/{name}/grad_styles", by_s)

        def size(s, w, call=call, cotangent=cotangent):
            return jnp.sum(jax.grad(lambda s: jnp.sum(call(x, w, s) * cotangent))(s) ** 2)

        by_s, by_w = jax.grad(size, argnums=(0, 1))(styles, w)
        if f"out/{name}/gg_styles" in o:
            o.check(f"out/{name}/gg_styles", by_s, rtol=1e-4)
        o.check(f"out/{name}/gg_w", by_w.transpose(3, 2, 0, 1), rtol=1e-4)


@pytest.mark.parametrize("path", [p for p in files("stylegan2", "generator")])
def test_generators(path):
    o = Oracle(path)
    net, found = convert.stylegan2.generator(convert.load_weights(path), **o.config)
    label = jnp.asarray(o["in/c"]) if "in/c" in o else None
    params, w_avg = {"params": found["params"]}, found["w_avg"]

    @jax.jit
    def run(z, z2, random):
        ws = [stylegan2.repeat(net.apply(params, z, label, method="map"), net.num_ws) for z in (z, z2)]
        psi, cut = o.config["ws_psi_cutoff"]["psi"], o.config["ws_psi_cutoff"]["cutoff"]
        synth = lambda ws, noise: net.apply(params, ws, noise, method="synthesize")  # noqa: E731
        const = found["noise"]
        truncated = stylegan2.truncate(ws[0], w_avg, o.config["truncation_psi"])
        mixed = stylegan2.mix(ws[0], ws[1], o.config["style_mixing_cutoff"])
        return {
            "ws": ws[0], "ws_psi": truncated, "ws_psi_cutoff": stylegan2.truncate(ws[0], w_avg, psi, cut),
            "ws_mixed": mixed, "img_const": synth(ws[0], const), "img_none": synth(ws[0], None),
            "img_random": synth(ws[0], random), "img_mixed": synth(mixed, const), "img_psi": synth(truncated, const),
            "w_avg_updated": w_avg + 0.005 * (ws[0][:, 0].mean(0) - w_avg),
        }  # fmt: skip

    random = {n.removeprefix("in/noise_random/"): nhwc(o, n) for n in o.names if n.startswith("in/noise_random/")}
    assert net.num_ws == o.config["num_ws"]
    for name, value in run(jnp.asarray(o["in/z"]), jnp.asarray(o["in/z2"]), random).items():
        o.check(f"out/{name}", value, image=name.startswith("img"))


@pytest.mark.parametrize("path", files("stylegan2", "discriminator"))
def test_discriminators(path):
    o = Oracle(path)
    net, variables = convert.stylegan2.discriminator(convert.load_weights(path), **o.config)
    label = jnp.asarray(o["in/c"]) if "in/c" in o else None

    @jax.jit
    def run(x):
        logits, pull = jax.vjp(lambda x: net.apply(variables, x, label), x)
        return logits, pull(jnp.ones_like(logits))[0]

    logits, by_image = run(nhwc(o, "in/img"))
    o.check("out/logits", logits[:, None])
    o.check("out/grad/sum_logits_wrt_img", by_image, image=True)


def check_gradients(o, phase, grads, scale=1.0):
    names = [n for n in o.names if n.startswith(f"out/{phase}/grad/")]
    assert len(names) > 3
    for name in names:
        plain = name.removeprefix(f"out/{phase}/grad/")
        leaf = scale * find(grads, plain)
        if plain.endswith(".const"):
            leaf = leaf.transpose(2, 0, 1)
        elif plain == "b4.fc.weight":
            leaf = leaf.reshape(4, 4, -1, leaf.shape[-1]).transpose(3, 2, 0, 1).reshape(leaf.shape[-1], -1)
        elif leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        elif leaf.ndim == 2:
            leaf = leaf.T
        o.check(name, leaf)
    total = scale * jnp.sqrt(sum(jnp.sum(g**2) for g in jax.tree.leaves(grads)))
    o.check(f"out/{phase}/grad_norm_all", total)


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "losses"))
def test_losses_of_every_phase(path):
    o = Oracle(path)
    weights = convert.load_weights(path)
    g, made = convert.stylegan2.generator(convert.part(weights, "G"), **o.config["G"])
    d, variables = convert.stylegan2.discriminator(convert.part(weights, "D"), **o.config["D"])
    style = stylegan.Style(
        map=lambda p, z, c: g.apply({"params": p}, z, c, method="map"),
        synthesize=lambda p, ws, noise: g.apply({"params": p}, ws, noise, method="synthesize"),
        noise=lambda key: {}, z_dim=g.z_dim, num_ws=g.num_ws,
    )  # fmt: skip
    discriminate = lambda p, x, c: d.apply({"params": p}, x, c)  # noqa: E731
    config, gains, w_avg = o.config["loss"], o.config["gains"], made["w_avg"]
    params = {"g": made["params"], "d": variables["params"]}
    z, real = jnp.asarray(o["in/gen_z"]), nhwc(o, "in/real_img")
    gen_c, real_c = jnp.asarray(o["in/gen_c"]), jnp.asarray(o["in/real_c"])

    def draws(phase, rows=None):
        mixed = o[f"in/{phase}/mix_u"] < config["style_mixing_prob"]
        cutoff = jnp.asarray(o[f"in/{phase}/mix_cutoff"] if mixed else g.num_ws)
        noise = {n.split("/")[-1]: nhwc(o, n) for n in o.names if n.startswith(f"in/{phase}/noise/")}
        return stylegan.Draws(z[:rows], jnp.asarray(o[f"in/{phase}/mix_z2"]), cutoff, noise)

    def g_main(own):
        images, centre = stylegan.fakes(style, own, draws("Gmain"), gen_c, w_avg)
        logits = discriminate(params["d"], images, gen_c)
        return gan.non_saturating.g(logits, logits), (images, logits, centre)

    (loss, (images, logits, centre)), grads = jax.jit(jax.value_and_grad(g_main, has_aux=True))(params["g"])
    o.check("out/Gmain/gen_img", images, image=True)
    o.check("out/Gmain/logits_fake", logits[:, None])
    o.check("out/Gmain/w_avg_after", centre)
    assert abs(float(loss) - o["out/Gmain/loss_G"].mean()) < 1e-4
    check_gradients(o, "Gmain", grads, gains["Gmain"])

    rows = len(z) // config["pl_batch_shrink"]

    def g_path(own):
        drawn, before = draws("Greg", rows), jnp.asarray(o["in/pl_mean"])
        ws, centre = stylegan.styles(style, own, drawn, gen_c[:rows], w_avg)
        synthesis = lambda ws: style.synthesize(own, ws, drawn.noise)  # noqa: E731
        penalty, _, mean = gan_penalties.path_length(synthesis, ws, nhwc(o, "in/Greg/pl_noise"), before, config["pl_decay"])
        return config["pl_weight"] * jnp.mean(penalty), (penalty, mean, centre)

    (_, (penalty, mean, centre)), grads = jax.jit(jax.value_and_grad(g_path, has_aux=True))(params["g"])
    o.check("out/Greg/pl_penalty", penalty.reshape(o["out/Greg/pl_penalty"].shape))
    o.check("out/Greg/pl_mean_after", mean)
    o.check("out/Greg/w_avg_after", centre)
    check_gradients(o, "Greg", grads, gains["Greg"])

    def d_main(own):
        images, _ = stylegan.fakes(style, params["g"], draws("Dmain"), gen_c, w_avg)
        fake, true = discriminate(own, images, gen_c), discriminate(own, real, real_c)
        return gan.non_saturating.d(true, fake), (fake, true)

    (_, (fake, true)), grads = jax.jit(jax.value_and_grad(d_main, has_aux=True))(params["d"])
    o.check("out/Dmain/logits_fake", fake[:, None])
    o.check("out/Dmain/logits_real", true[:, None])
    check_gradients(o, "Dmain", grads, gains["Dmain"])

    def d_r1(own):
        return gan_penalties.r1(lambda x: discriminate(own, x, real_c), real, config["r1_gamma"])

    loss, grads = jax.jit(jax.value_and_grad(d_r1))(params["d"])
    assert abs(float(loss) / o["out/Dreg/loss_r1"].mean() - 1) < 1e-3
    check_gradients(o, "Dreg", grads, gains["Dreg"])
