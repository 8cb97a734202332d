"""StyleGAN3's filters, layer tables, operators and generators against NVIDIA's."""

import jax
import jax.numpy as jnp
import pytest

from jgen import convert
from jgen.convert.stylegan3 import layers_of
from jgen.models.gan import stylegan2, stylegan3
from jgen.nn.filtered_lrelu import filtered_lrelu
from jgen.nn.lowpass import lowpass_filter
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

FIELDS = {
    "in_sampling_rate": "in_rate", "out_sampling_rate": "out_rate", "tmp_sampling_rate": "rate", "in_cutoff": "in_cutoff",
    "out_cutoff": "out_cutoff", "in_half_width": "in_half_width", "out_half_width": "out_half_width", "up_factor": "up",
    "up_taps": "up_taps", "down_factor": "down", "down_taps": "down_taps", "is_critically_sampled": "critical",
    "down_radial": "radial", "is_torgb": "to_rgb", "in_channels": "in_channels", "out_channels": "out_channels",
    "in_size": "in_size", "out_size": "out_size",
}  # fmt: skip
"""The authors' names of a layer's numbers -> ours."""


def check_table(o, at, layers, names=None):
    """Compares all numbers of a table that the file has, and the layers' names."""
    if names is not None:
        assert [layer.name for layer in layers] == names
    for name in (n for n in o.names if n.startswith(f"out/{at}")):
        field, _, layer = name.removeprefix(f"out/{at}").partition("/")
        if layer:
            found = next(one for one in layers if one.name == layer)
            o.check(name, getattr(found, field), rtol=1e-6)
        elif field == "padding":
            o.check(name, [layer.padding * 2 for layer in layers])
        elif field == "num_ws":
            o.check(name, len(layers) + 1)
        elif field == "input_bandwidth_rate_size":
            o.check(name, [layers[0].in_cutoff, layers[0].in_rate, layers[0].in_size])
        else:
            o.check(name, [getattr(layer, FIELDS[field]) for layer in layers])


@pytest.mark.parametrize("path", files("stylegan3", "lowpass_filters"))
def test_lowpass_filters(path):
    o = Oracle(path)
    for name, c in o.config.items():
        o.check(f"out/{name}", lowpass_filter(c["numtaps"], c["cutoff"], c["width"], c["fs"], c.get("radial", False)))
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan3", "layer_table"))
def test_layer_tables(path):
    o = Oracle(path)
    for name, c in o.config.items():
        layers = layers_of(c["img_resolution"], c.get("img_channels", 3), c)
        check_table(o, f"{name}/", layers, o.meta.get("layer_names", {}).get(name))
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan3", "ops_filtered_lrelu"))
def test_filtered_leaky_relu(path):
    o = Oracle(path)
    with jax.enable_x64(True):
        x, bias = jnp.asarray(o.nhwc("in/x"), float), jnp.asarray(o["in/b"], float)
        for name, c in o.config.items():
            own = {"flip" if k == "flip_filter" else k: v for k, v in c.items() if k not in ("fu", "fd")}
            filters = [None if c.get(k) is None else o[f"in/{c[k]}"] for k in ("fu", "fd")]
            call = jax.jit(lambda x, b, own=own, filters=filters: filtered_lrelu(x, b, *filters, **own))
            cotangent = jnp.asarray(o.nhwc(f"in/{name}/cotangent"), float)

            def grads(x, b, call=call, cotangent=cotangent):
                return jax.vjp(call, x, b)[1](cotangent)

            by_x, by_bias = grads(x, bias)
            o.check(f"out/{name}/y", call(x, bias), image=True)
            o.check(f"out/{name}/grad_x", by_x, image=True)
            o.check(f"out/{name}/grad_b", by_bias)
            if f"out/{name}/gg_x" in o:
                squares = lambda x, grads=grads: jnp.sum(grads(x, bias)[1] ** 2)  # noqa: E731
                o.check(f"out/{name}/gg_x", jax.grad(squares)(x), image=True)
    o.check_whole()


@pytest.mark.parametrize("path", files("stylegan3", "ops_modulated_conv2d"))
def test_modulated_convolution(path):
    o = Oracle(path)
    x, styles = jnp.asarray(o.nhwc("in/x")), jnp.asarray(o["in/s"])
    for name, c in o.config.items():
        gain = jnp.asarray(o[f"in/{name}/input_gain"]) if f"in/{name}/input_gain" in o else 1.0
        own = {k: c[k] for k in ("demodulate", "padding") if k in c}
        call = lambda x, w, s, own=own, gain=gain: stylegan3.modulated_conv(x, w, s, gain=gain, **own)  # noqa: E731
        y, pull = jax.vjp(call, x, jnp.asarray(o[f"in/{name}/w"].transpose(2, 3, 1, 0)), styles)
        by_x, by_w, by_s = pull(jnp.asarray(o.nhwc(f"in/{name}/cotangent")))
        o.check(f"out/{name}/y", y, image=True)
        o.check(f"out/{name}/grad_x", by_x, image=True)
        o.check(f"out/{name}/grad_w", by_w.transpose(3, 2, 0, 1))
        o.check(f"out/{name}/grad_s", by_s)
    o.check_whole()


OF_THE_FILE = ("num_ws", "truncation_psi", "truncation_cutoff", "intermediates_first_n_samples")
"""Settings of what a file computes, beside the constructor's arguments."""


@pytest.mark.parametrize("path", files("stylegan3", "generator"))
def test_generators(path):
    o = Oracle(path)
    net, found = convert.stylegan3.generator(
        convert.load_weights(path), **{k: v for k, v in o.config.items() if k not in OF_THE_FILE}
    )
    assert net.num_ws == o.config.get("num_ws", net.num_ws)
    variables = {name: found[name] for name in ("params", "buffers")}
    label = jnp.asarray(o["in/c"]) if "in/c" in o else None
    first, psi = o.config.get("intermediates_first_n_samples"), o.config.get("truncation_psi", 1.0)

    def synth(ws, transform=None, **how):
        return net.apply(variables, ws, transform, method="synthesize", **how)

    @jax.jit
    def run(z):
        w = net.apply(variables, z, label, method="map")
        ws = stylegan2.repeat(w, net.num_ws)
        pulled = stylegan2.truncate(ws, found["w_avg"], psi)
        image, seen = synth(ws, capture_intermediates=True)
        acts = {f"act/{name}": part["__call__"][0][:first] for name, part in seen["intermediates"]["synthesis"].items()
                if name != "__call__"}  # fmt: skip
        updated, moved = synth(ws, update=True, mutable=["buffers"])
        rows = {"ws": ws, "ws_psi": pulled, "ws_psi_cutoff": stylegan2.truncate(ws, found["w_avg"], psi, cutoff),
                "ema/w_avg": stylegan3.track(found["w_avg"], w, found["w_avg_beta"])}  # fmt: skip
        rows |= {f"ema/magnitude_ema/{n}": v["magnitude_ema"] for n, v in moved["buffers"]["synthesis"].items()
                 if "magnitude_ema" in v}  # fmt: skip
        images = {"img": image, "img_psi": synth(pulled), "img_update_emas": updated, **acts}
        for name, matrix in transforms.items():
            image, seen = synth(ws, matrix, capture_intermediates=True)
            inside = seen["intermediates"]["synthesis"]["input"]["__call__"][0]
            images |= {f"img{name}": image, f"input{name}": inside[:first]}
        return rows, images

    cutoff = o.config.get("truncation_cutoff")
    transforms = {
        "_" + n.removeprefix("in/").replace("transform", "transformed"): jnp.asarray(o[n])
        for n in o.names
        if n.startswith("in/transform")
    }
    rows, images = run(jnp.asarray(o["in/z"]))
    for name, value in rows.items():
        o.check(f"out/{name}", value)
    for name, value in images.items():
        o.check(f"out/{name}", value, image=True)
    if "in/cotangent_img" in o:
        check_gradients(o, synth, rows["ws"])
    check_table(o, "spec/", net.layers, o.meta.get("layer_names"))
    o.check_whole()


def check_gradients(o, synth, ws):
    """The first and the second order by the styles."""
    cotangent = jnp.asarray(o.nhwc("in/cotangent_img"))

    def by_ws(ws):
        return jax.grad(lambda ws: jnp.sum(synth(ws) * cotangent))(ws)

    o.check("out/grad/img_dot_cotangent_wrt_ws", jax.jit(by_ws)(ws))
    o.check("out/grad/second_order_wrt_ws", jax.jit(jax.grad(lambda ws: jnp.sum(by_ws(ws) ** 2)))(ws))


def test_an_argument_without_effect_is_refused():
    with pytest.raises(ValueError, match="noise_mode"):
        convert.stylegan3.generator({}, img_resolution=16, noise_mode="const")
