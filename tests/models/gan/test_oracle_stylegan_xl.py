"""StyleGAN-XL's generators, growth tables, heads and losses against their authors' numbers."""

import jax
import jax.numpy as jnp
import pytest

from jgen import convert
from jgen.convert import projected_gan, stylegan_xl
from jgen.convert.stylegan3 import layers_of
from jgen.errors import UserError
from jgen.models.gan import stylegan2
from jgen.models.gan import stylegan_xl as model
from jgen.objectives import gan
from tests.models.gan.test_oracle_projected import head_options, labels
from tests.models.gan.test_oracle_stylegan3 import check_table
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]

CONSTRUCTOR = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
OF_THE_FILE = (
    "num_ws", "truncation_psi", "truncation_cutoff", "embedding_dim", "stem", "superres", "growth", "stem_len",
    "head_layer_names",
)  # fmt: skip


def read(o):
    """The generator of a file, of a stem or grown from one."""
    stem = o.config.get("stem", {k: v for k, v in o.config.items() if k not in OF_THE_FILE})
    steps = o.config.get("growth", [o.config["superres"]] if "superres" in o.config else [])
    return stylegan_xl.generator(convert.load_weights(o.path), **stem, growth=steps)


@pytest.mark.parametrize("path", files("styleganxl", "generator"))
def test_generators(path):
    o = Oracle(path)
    net, found = read(o)
    assert net.num_ws == o.config.get("num_ws", net.num_ws)
    if "stem_len" in o.config and "head_layer_names" in o.config:
        names = o.config["head_layer_names"]
        assert [layer.name for layer in net.layers][o.config["stem_len"] - 1 :] == names
    variables = {name: found[name] for name in ("params", "buffers")}
    label, psi, cutoff = labels(o), o.config.get("truncation_psi", 1.0), o.config.get("truncation_cutoff")
    rows = next((len(o[n]) for n in o.names if n.startswith("out/act/")), 1)

    @jax.jit
    def run(z):
        w = net.apply(variables, z, label, method="map")
        ws = stylegan2.repeat(w, net.num_ws)
        synth = lambda ws, **how: net.apply(variables, ws, method="synthesize", **how)  # noqa: E731
        pulled = model.pull(ws, found["w_avg"], label, psi)
        image, seen = synth(ws, capture_intermediates=True)
        parts = seen["intermediates"]["synthesis"].items()
        updated, moved = synth(ws, update=True, mutable=["buffers"])
        plain = {"ws": ws, "ws_psi": pulled, "ws_psi_cutoff": model.pull(ws, found["w_avg"], label, psi, cutoff),
                 "ema/w_avg": model.track(found["w_avg"], w, label, found["w_avg_beta"])}  # fmt: skip
        plain |= {f"ema/magnitude_ema/{n}": v["magnitude_ema"] for n, v in moved["buffers"]["synthesis"].items()
                  if "magnitude_ema" in v}  # fmt: skip
        acts = {f"act/{name}": part["__call__"][0][:rows] for name, part in parts if name != "__call__"}
        return plain, {"img": image, "img_psi": synth(pulled), "img_update_emas": updated, **acts}

    plain, images = run(jnp.asarray(o["in/z"]))
    for name, value in plain.items():
        o.check(f"out/{name}", value)
    for name, value in images.items():
        o.check(f"out/{name}", value, image=True)
    check_table(o, "spec/", net.layers, o.meta.get("layer_names"))
    o.check_whole()


@pytest.mark.parametrize("path", files("styleganxl", "growth_table"))
def test_growth_tables(path):
    o = Oracle(path)
    base = o.config["base"]
    own = {k: v for k, v in base.items() if k not in CONSTRUCTOR}
    layers = layers_of(base["img_resolution"], base.get("img_channels", 3), own)
    tables = {f"res{base['img_resolution']}": layers}
    for step in o.config["growth"]:
        layers = stylegan_xl.grown(layers, own, **step)
        tables[f"res{step['img_resolution']}"] = layers
    for name, layers in tables.items():
        check_table(o, f"{name}/", layers, o.meta.get("layer_names", {}).get(name))
    o.check_whole()


@pytest.mark.parametrize("path", files("styleganxl", "multiscale_disc"))
def test_heads_and_losses(path):
    o = Oracle(path)
    weights = convert.load_weights(path)
    options = head_options(o.config)
    label = labels(o)
    for name in sorted({k.split(".")[0] for k in weights}):
        own = convert.part(weights, name)
        cond = {"cond": int(any(".cls." in k for k in own)), "fixed": True}
        net, found = projected_gan.discriminator(own, **{**cond, **options})
        features = [jnp.asarray(o.nhwc(f"in/{name}/feature{i}")) for i in range(options.get("num_discs", 4))]
        for mode in ("eval", "train"):
            call = lambda f, mode=mode, net=net, found=found: net.apply(  # noqa: E731
                found, f, label, train=mode == "train", mutable=["batch_stats", "spectral"]
            )
            o.check(f"out/{mode}/logits/{name}", jax.jit(call)(features)[0])

    count = len({n for n in o.names if n.startswith("in/loss/logits_fake")})
    real, fake = ([jnp.asarray(o[f"in/loss/logits_{kind}{i}"]) for i in range(count)] for kind in ("real", "fake"))
    loss = gan.summed(gan.hinge)
    if not count:
        return o.check_whole()
    value, grads = jax.value_and_grad(lambda f: loss.g(f, real))(fake)
    o.check("out/loss/G", value)
    for i, grad in enumerate(grads):
        o.check(f"out/loss/grad/G_wrt_fake{i}", grad)
    value, grads = jax.value_and_grad(loss.d, (0, 1))(real, fake)
    o.check("out/loss/D", value)
    for kind, of in zip(("real", "fake"), grads):
        for i, grad in enumerate(of):
            o.check(f"out/loss/grad/D_wrt_{kind}{i}", grad)
    o.check_whole()


def test_a_stem_that_does_not_fit_is_refused():
    layers = layers_of(16, 3, {"num_layers": 4})
    for growth, message in (
        ({"img_resolution": 48, "head_layers": 4}, "resolution=48: must be 2, 4, 8 or 16 times the stem's 16"),
        ({"img_resolution": 32, "head_layers": 4, "up_factor": 4}, "up_factor=4: 16 pixels grow to 32 by another"),
        ({"img_resolution": 32, "head_layers": 2}, "num_layers=2: must be above"),
        ({"img_resolution": 32}, "head_layers: missing"),
    ):
        with pytest.raises(UserError, match=message):
            stylegan_xl.grown(layers, {}, **growth)
    grows = [{"img_resolution": 32, "head_layers": 4}]
    with pytest.raises(UserError, match="conv_clamp=None: must be 256 in a stem that grows"):
        stylegan_xl.generator({}, img_resolution=16, num_layers=4, conv_clamp=None, growth=grows)
    with pytest.raises(UserError, match="of shape"):
        stylegan_xl.generator({}, img_resolution=16, c_dim=3)
