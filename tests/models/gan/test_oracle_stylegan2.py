"""StyleGAN2's operators, networks and losses against NVIDIA's."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.metrics import paths
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
    o.check_whole()


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
    o.check_whole()


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
        if "up" in config and "groups" not in config and of_the_networks(config, hwio(o, f"in/{name}/w"), f):
            o.check(f"out/{name}/y", fir.upsample_conv(x, hwio(o, f"in/{name}/w"), f), rtol=3e-5, image=True)
    o.check_whole()


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
    o.check_whole()


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_minibatch_std"))
def test_minibatch_standard_deviation(path):
    o = Oracle(path)
    for name, c in o.config.items():
        call = lambda x, c=c: equalized.minibatch_std(x, c["group_size"], c["num_channels"])  # noqa: E731
        y, pull = jax.vjp(call, nhwc(o, f"in/{name}/x"))
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", pull(nhwc(o, f"in/{name}/cotangent"))[0], image=True)
    o.check_whole()


def of_the_networks(config, w, f):
    """Whether the layers of the paper's networks have these options: they keep the size, or double it as `upsample_conv`."""
    how = {"up": 1, "down": 1, "padding": 0, "flip_weight": True, **config}
    if how["down"] != 1 or how["padding"] != w.shape[0] // 2 or how["flip_weight"] != (how["up"] == 1):
        return False
    return how["up"] == 1 or (how["up"] == 2 and w.shape[:2] == (3, 3) and f is not None and np.isclose(f.sum(), 1))


def modulated(x, w, styles, f, config):
    """Of options that no network of the paper has, put together of the parts."""
    how = {name: config[name] for name in ("up", "down", "padding", "flip_weight") if name in config}
    y = fir.conv2d_resample(x * styles[:, None, None], w, f, **how)
    size = jnp.square(styles) @ jnp.sum(jnp.square(w), (0, 1))
    return y * jax.lax.rsqrt(size + 1e-8)[:, None, None] if config.get("demodulate", True) else y


@pytest.mark.slow
@pytest.mark.parametrize("path", files("stylegan2", "ops_modulated_conv2d"))
def test_modulated_convolution(path):
    o = Oracle(path)
    x, styles = nhwc(o, "in/x"), jnp.asarray(o["in/styles"])
    for name, c in o.config.items():
        w, cotangent = hwio(o, f"in/{name}/w"), nhwc(o, f"in/{name}/cotangent")
        noise = nhwc(o, f"in/{name}/noise") if c.get("noise") else 0.0
        f = o[f"in/{name}/f"] if f"in/{name}/f" in o else None

        def call(x, w, s, c=c, noise=noise, f=f):
            if not of_the_networks(c, w, f):
                return modulated(x, w, s, f, c) + noise
            how = {} if f is None else {"taps": f}
            return equalized.modulated_conv(x, w, s, up=c.get("up", 1), demodulate=c.get("demodulate", True), **how) + noise

        y, pull = jax.vjp(call, x, w, styles)
        by_x, by_w, by_s = pull(cotangent)
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", by_x, image=True)
        o.check(f"out/{name}/grad_w", by_w.transpose(3, 2, 0, 1))
        o.check(f"out/{name}/grad_styles", by_s)

        def size(s, w, call=call, cotangent=cotangent):
            return jnp.sum(jax.grad(lambda s: jnp.sum(call(x, w, s) * cotangent))(s) ** 2)

        by_s, by_w = jax.grad(size, argnums=(0, 1))(styles, w)
        o.check(f"out/{name}/gg_styles", by_s, rtol=1e-4)
        o.check(f"out/{name}/gg_w", by_w.transpose(3, 2, 0, 1), rtol=1e-4)
    o.check_whole()


OF_THE_FILE = ("truncation_psi", "ws_psi_cutoff", "style_mixing_cutoff", "num_ws")
"""Settings of what a file computes, beside the constructor's arguments."""


@pytest.mark.parametrize("path", files("stylegan2", "generator"))
def test_generators(path):
    o = Oracle(path)
    arguments = {k: v for k, v in o.config.items() if k not in OF_THE_FILE}
    net, found = convert.stylegan2.generator(convert.load_weights(path), **arguments)
    label = jnp.asarray(o["in/c"]) if "in/c" in o else None
    params, w_avg = {"params": found["params"]}, found["w_avg"]

    @jax.jit
    def run(z, z2, random):
        ws = [stylegan2.repeat(net.apply(params, z, label, method="map"), net.num_ws) for z in (z, z2) if z is not None]
        const = found["noise"]

        def synth(ws, noise, **how):
            return net.apply(params, ws, noise, method="synthesize", **how)

        image, seen = synth(ws[0], const, capture_intermediates=True)
        outputs = {"ws": ws[0], "img_const": image, "img_none": synth(ws[0], None), "img_random": synth(ws[0], random)}
        for side, block in seen["intermediates"]["synthesis"].items():
            if side != "__call__":
                features, so_far = block["__call__"][0]
                outputs |= {f"{side}_x": features} | ({} if so_far is None else {f"{side}_img": so_far})
        if z2 is not None:
            mixed = stylegan2.mix(ws[0], ws[1], o.config["style_mixing_cutoff"])
            outputs |= {"ws_mixed": mixed, "img_mixed": synth(mixed, const)}
        if w_avg is not None:
            outputs["w_avg_updated"] = w_avg + (1 - found["w_avg_beta"]) * (ws[0][:, 0].mean(0) - w_avg)
            if "truncation_psi" in o.config:
                truncated = stylegan2.truncate(ws[0], w_avg, o.config["truncation_psi"])
                outputs |= {"ws_psi": truncated, "img_psi": synth(truncated, const)}
            if part := o.config.get("ws_psi_cutoff"):
                outputs["ws_psi_cutoff"] = stylegan2.truncate(ws[0], w_avg, part["psi"], part["cutoff"])
        return outputs

    random = {n.removeprefix("in/noise_random/"): nhwc(o, n) for n in o.names if n.startswith("in/noise_random/")}
    assert net.num_ws == o.config.get("num_ws", net.num_ws)
    z2 = jnp.asarray(o["in/z2"]) if "in/z2" in o and "style_mixing_cutoff" in o.config else None
    for name, value in run(jnp.asarray(o["in/z"]), z2, random).items():
        o.check(f"out/{name}", value, image=value.ndim == 4)
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan2", "perceptual_path_length"))
def test_perceptual_path_length(path):
    """In float64, since the differences of a tiny step are all rounding in float32."""
    o = Oracle(path)
    net, found = convert.stylegan2.generator(convert.load_weights(path), **o.config["G"])
    with jax.enable_x64(True):
        params = jax.tree.map(lambda v: jnp.asarray(v, jnp.float64), {"params": found["params"]})
        label = jnp.asarray(o["in/c"], float) if "in/c" in o else None
        planes = {n: o[n].astype(np.float64) for n in o.names if n.startswith("in/noise_const/")}
        noise = {n.removeprefix("in/noise_const/synthesis."): jnp.asarray(v)[None, :, :, None] for n, v in planes.items()}
        matrices = {name: jnp.asarray(o[f"in/M_{name}"], float) for name in ("full", "crop") if f"in/M_{name}" in o}

        def features(levels, crop):
            if crop:
                unit = levels.shape[1] // 8
                levels = levels[:, 3 * unit : 7 * unit, 2 * unit : 6 * unit]
            levels = jnp.repeat(levels, 3, -1) if levels.shape[-1] == 1 else levels
            return jnp.tanh(jnp.moveaxis(levels, -1, 1).reshape(len(levels), -1) / 255 @ matrices["crop" if crop else "full"])

        z0, z1, t = (jnp.asarray(o[f"in/{k}"].astype(np.float64)) for k in ("z0", "z1", "t"))
        for name in (n.removeprefix("out/dist/") for n in o.names if n.startswith("out/dist/")):
            space, sampling, *crop = name.split("_")
            distances = paths.path_distances(
                lambda z: net.apply(params, z, label, method="map"),
                lambda w: net.apply(params, stylegan2.repeat(w, net.num_ws), noise, method="synthesize"),
                lambda levels, crop=crop: features(levels, bool(crop)),
                z0, z1, t, space=space, sampling=sampling, epsilon=o.config["epsilon"],
            )  # fmt: skip
            o.check(f"out/dist/{name}", distances)
        if "out/slerp/y" in o:
            a, b, share = (jnp.asarray(o[f"in/slerp/{k}"].astype(np.float64)) for k in "abt")
            o.check("out/slerp/y", paths.slerp(a, b, share[:, 0]))
        if "in/percentile/dist" in o:
            length = paths.path_length(o["in/percentile/dist"])
            o.check("out/percentile/lo_hi", [length.low, length.high])
            o.check("out/percentile/ppl", length.mean)
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan2", "discriminator"))
def test_discriminators(path):
    o = Oracle(path)
    net, variables = convert.stylegan2.discriminator(convert.load_weights(path), **o.config)
    label = jnp.asarray(o["in/c"]) if "in/c" in o else None

    @jax.jit
    def run(x):
        logits, pull = jax.vjp(lambda x: net.apply(variables, x, label), x)
        seen = net.apply(variables, x, label, capture_intermediates=True)[1]["intermediates"]
        return logits, pull(jnp.ones_like(logits))[0], seen

    logits, by_image, seen = run(nhwc(o, "in/img"))
    o.check("out/logits", logits[:, None])
    outputs = {name: part["__call__"][0] for name, part in seen.items() if name not in ("__call__", "b4")}
    for name, (features, image) in ((n, v) for n, v in outputs.items() if n[0] == "b"):
        for kind, value in (("x", features), ("img", image)):
            if f"out/{name}_{kind}" in o:
                o.check(f"out/{name}_{kind}", value, image=True)
    if "out/cmap" in o:
        o.check("out/cmap", outputs["mapping"])
    if "out/mbstd_feature" in o and "b8" in outputs:
        last = outputs["b8"][0]
        last = last + seen["b4"]["fromrgb"]["__call__"][0] if "fromrgb" in seen["b4"] else last
        o.check("out/mbstd_feature", equalized.minibatch_std(last, net.group, net.std_channels)[:, 0, 0, last.shape[-1] :])
    o.check("out/grad/sum_logits_wrt_img", by_image, image=True)
    o.check_whole()


def check_gradients(o, phase, grads, scale=1.0):
    for name in (n for n in o.names if n.startswith(f"out/{phase}/grad/")):
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


def check_path_length(o, style, params, draws, gen_c, w_avg):
    """The phase "Greg"."""
    config = o.config["loss"]
    rows = len(o["in/gen_z"]) // config["pl_batch_shrink"]
    path_c = None if gen_c is None else gen_c[:rows]

    def g_path(own):
        drawn, before = draws("Greg", rows), jnp.asarray(o["in/pl_mean"])
        ws, centre = stylegan.styles(style, own, drawn, path_c, w_avg)
        synthesis = lambda ws: style.synthesize(own, ws, drawn.noise)  # noqa: E731
        penalty, _, mean = gan_penalties.path_length(synthesis, ws, nhwc(o, "in/Greg/pl_noise"), before, config["pl_decay"])
        return config["pl_weight"] * jnp.mean(penalty), (ws, synthesis(ws), penalty, mean, centre)

    (_, (ws, images, penalty, mean, centre)), grads = jax.jit(jax.value_and_grad(g_path, has_aux=True))(params)
    o.check("out/Greg/ws", ws)
    o.check("out/Greg/gen_img", images, image=True)
    for name, value in (("pl_penalty", penalty), ("loss_pl", config["pl_weight"] * penalty)):
        if f"out/Greg/{name}" in o:
            o.check(f"out/Greg/{name}", value.reshape(o[f"out/Greg/{name}"].shape))
    o.check("out/Greg/pl_mean_after", mean)
    o.check("out/Greg/w_avg_after", centre)
    check_gradients(o, "Greg", grads, o.config["gains"]["Greg"])


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
        noise=lambda key: {}, z_dim=g.z_dim, num_ws=g.num_ws, w_decay=made["w_avg_beta"] or 0.0,
    )  # fmt: skip
    discriminate = lambda p, x, c: d.apply({"params": p}, x, c)  # noqa: E731
    config, gains = o.config["loss"], o.config["gains"]
    w_avg = jnp.zeros(g.w_dim) if made["w_avg"] is None else made["w_avg"]
    params = {"g": made["params"], "d": variables["params"]}
    z, real = jnp.asarray(o["in/gen_z"]), nhwc(o, "in/real_img")
    gen_c, real_c = (jnp.asarray(o[f"in/{k}"]) if f"in/{k}" in o else None for k in ("gen_c", "real_c"))

    def draws(phase, rows=None):
        mixed = config["style_mixing_prob"] and o[f"in/{phase}/mix_u"] < config["style_mixing_prob"]
        cutoff = jnp.asarray(o[f"in/{phase}/mix_cutoff"] if mixed else g.num_ws)
        noise = {n.split("/")[-1]: nhwc(o, n) for n in o.names if n.startswith(f"in/{phase}/noise/")}
        other = jnp.asarray(o[f"in/{phase}/mix_z2"]) if f"in/{phase}/mix_z2" in o else z[:rows]
        return stylegan.Draws(z[:rows], other, cutoff, noise)

    def g_main(own):
        drawn = draws("Gmain")
        ws, centre = stylegan.styles(style, own, drawn, gen_c, w_avg)
        images = style.synthesize(own, ws, drawn.noise)
        logits = discriminate(params["d"], images, gen_c)
        each = jnp.stack([gan.non_saturating.g(one[None], one[None]) for one in logits])
        return gan.non_saturating.g(logits, logits), (ws, images, logits, each, centre)

    (ws, images, logits, each, centre), grads = jax.jit(jax.grad(g_main, has_aux=True))(params["g"])[::-1]
    o.check("out/Gmain/ws", ws)
    o.check("out/Gmain/gen_img", images, image=True)
    o.check("out/Gmain/logits_fake", logits[:, None])
    o.check("out/Gmain/loss_G", each[:, None])
    o.check("out/Gmain/w_avg_after", centre)
    check_gradients(o, "Gmain", grads, gains["Gmain"])

    if "in/Greg/pl_noise" in o:
        check_path_length(o, style, params["g"], draws, gen_c, w_avg)

    def d_main(own):
        drawn = draws("Dmain")
        ws, centre = stylegan.styles(style, params["g"], drawn, gen_c, w_avg)
        images = style.synthesize(params["g"], ws, drawn.noise)
        fake, true = discriminate(own, images, gen_c), discriminate(own, real, real_c)
        each = [gan.non_saturating.d(r[None], f[None]) for r, f in zip(true, fake)]
        return gan.non_saturating.d(true, fake), (fake, true, ws, images, centre, jnp.stack(each))

    (_, (fake, true, ws, images, centre, each)), grads = jax.jit(jax.value_and_grad(d_main, has_aux=True))(params["d"])
    o.check("out/Dmain/logits_fake", fake[:, None])
    o.check("out/Dmain/logits_real", true[:, None])
    o.check("out/Dmain/loss_D", each[:, None])
    o.check("out/Dmain/ws", ws)
    o.check("out/Dmain/gen_img", images, image=True)
    o.check("out/Dmain/w_avg_after", centre)
    check_gradients(o, "Dmain", grads, gains["Dmain"])

    def d_r1(own):
        return gan_penalties.r1(lambda x: discriminate(own, x, real_c), real, config["r1_gamma"])

    loss, grads = jax.jit(jax.value_and_grad(d_r1))(params["d"])
    discriminator = jax.jit(lambda x: discriminate(params["d"], x, real_c))
    o.check("out/Dreg/logits_real", discriminator(real)[:, None])
    penalty = gan_penalties.squared_gradient_norms(discriminator, real)
    o.check("out/Dreg/r1_penalty", penalty)
    o.check("out/Dreg/loss_r1", config["r1_gamma"] / 2 * penalty)
    np.testing.assert_allclose(loss, config["r1_gamma"] / 2 * jnp.mean(penalty), rtol=1e-3)
    check_gradients(o, "Dreg", grads, gains["Dreg"])
    o.check_whole()
