"""Glow and its layers against glow-pytorch and normflows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import glow as convert
from jgen.convert import load_weights
from jgen.convert.common import fill
from jgen.nn.flow import PORT, ActNorm, BorderConv, Coupling, CouplingNet, Invertible1x1, halves, squeeze
from tests.models.whole import check_gradients, without
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def wide(tree):
    return jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), tree)


@pytest.mark.parametrize("path", files("glow", "glow", apart=("glow_layers",)))
def test_glow(path):
    o = Oracle(path)
    config, weights = without(o.config, "B", "n_bits"), load_weights(path)
    net, variables = convert.glow_pytorch(weights, **config)
    x, levels = jnp.asarray(o.nhwc("in/x")), 2 ** o.config["n_bits"]

    def bits(params, x):
        flow = net.apply({**variables, "params": params}, x)
        log_p, logdet = sum(flow.log_prob), sum(flow.logdet)
        nats = np.log(levels) * x[0].size - jnp.mean(logdet + log_p)
        return nats / (np.log(2) * x[0].size), flow

    (value, flow), (by_weight, by_x) = jax.jit(jax.value_and_grad(bits, (0, 1), has_aux=True))(variables["params"], x)
    o.check("out/bits_per_dim", value)
    o.check("out/log_p", sum(flow.log_prob))
    o.check("out/logdet", sum(flow.logdet))
    o.check("out/squeeze", squeeze(x), image=True)
    o.check("out/grad/in/x", by_x, image=True)
    for i in range(net.levels):
        o.check(f"out/z/{i}", flow.latents[i], image=True)
        o.check(f"out/block/{i}/out", flow.out[i], image=True)
        o.check(f"out/block/{i}/logdet", flow.logdet[i])
        o.check(f"out/block/{i}/log_p", flow.log_prob[i])
    check_gradients(o, lambda w: convert.glow_pytorch(w, **config)[1], weights, by_weight, "out/grad/w/")
    eps = [jnp.asarray(o.nhwc(f"in/eps/{i}")) for i in range(net.levels)]
    inverse = jax.jit(lambda eps: net.apply(variables, eps, method="inverse"))
    o.check("out/reverse/from_eps", inverse(eps), image=True)
    o.check_whole()


def of_layer(net, weights, name, x):
    """The variables of a layer, from the weights of the port whose names begin with its name."""
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), x))
    place = {"zeroconv": lambda n: (n.rpartition(".")[2].replace("weight", "kernel"),)}.get(
        name, lambda n: convert.layer_path(n)[1:]
    )
    used = {n: a for n, a in weights.items() if n.startswith(f"{name}.")}
    used = {n: a for n, a in used.items() if not n.endswith((".initialized", "_mask", "_eye"))}
    fixed = {n: used.pop(n) for n in list(used) if place(n)[-1] in convert.FIXED}
    found = {"params": fill(shapes["params"], used, place, convert._torch_layout)}
    return found | ({"fixed": fill(shapes["fixed"], fixed, place, convert._torch_layout)} if fixed else {})


@pytest.mark.parametrize("path", files("glow", "glow_layers"))
def test_layers_of_the_port(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        weights, config = load_weights(path), o.config
        x, y = (jnp.asarray(o.nhwc(f"in/{n}"), jnp.float64) for n in "xy")
        norm = ActNorm("plain")
        fresh, first = jnp.asarray(o.nhwc("in/x_init"), jnp.float64), None
        (first, logdet), variables = norm.init_with_output(jax.random.key(0), fresh)
        for name, key in (("loc", "shift"), ("scale", "scale")):
            o.check(f"out/actnorm_init/{name}", variables["params"][key].reshape(o[f"out/actnorm_init/{name}"].shape))
        o.check("out/actnorm_init/y", first, image=True)
        if "out/actnorm_init/logdet" in o:
            o.check("out/actnorm_init/logdet", logdet)
        coupling = Coupling(config["filter_size"], config["affine"], PORT)
        for name, layer in (("actnorm", norm), ("invconv", Invertible1x1(config["conv_lu"])), ("coupling", coupling)):
            variables = wide(of_layer(layer, weights, name, x))
            z, logdet = layer.apply(variables, x)
            o.check(f"out/{name}/y", z, image=True)
            o.check(f"out/{name}/reverse", layer.apply(variables, y, method="inverse"), image=True)
            if f"out/{name}/logdet" in o:
                o.check(f"out/{name}/logdet", jnp.broadcast_to(logdet, o[f"out/{name}/logdet"].shape))
            if name == "invconv":
                unit = jnp.eye(x.shape[-1])[:, None, None]
                o.check("out/invconv/weight", layer.apply(variables, unit)[0][:, 0, 0].T[..., None, None])
        net = CouplingNet(x.shape[-1] if config["affine"] else x.shape[-1] // 2, config["filter_size"], PORT)
        params = variables["params"]["net"]
        o.check("out/coupling/net", net.apply({"params": params}, halves(x)[0]), image=True)
        zero = BorderConv(weights["zeroconv.conv.bias"].size, border="ones", last=True, scaled=True)
        o.check("out/zeroconv/y", zero.apply(wide(of_layer(zero, weights, "zeroconv", x)), x), image=True)
        o.check_whole()


@pytest.mark.parametrize("path", files("glow", "normflows_glowblock"))
def test_block_of_normflows(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        size = dict(height=o.config["H"], width=o.config["W"])
        net, variables = convert.normflows_block(load_weights(path), **without(o.config, "B", "H", "W"), **size)
        variables, z, x = wide(variables), jnp.asarray(o.nhwc("in/z"), jnp.float64), jnp.asarray(o.nhwc("in/x"), jnp.float64)
        at_x = net.apply(variables, x)
        o.check("out/inverse/z", at_x[0], image=True)
        o.check("out/inverse/logdet", at_x[1])
        back = net.apply(variables, z, method="inverse")
        o.check("out/forward/x", back, image=True)
        o.check("out/forward/logdet", -net.apply(variables, back)[1])
        layers = {"AffineCouplingBlock": "coupling", "Invertible1x1Conv": "mix", "ActNorm": "norm"}
        steps = sorted({n.split("/")[2] for n in o.names if n.startswith("out/forward/") and n.count("/") == 3})
        for name in steps:
            layer = layers[name.split("_", 1)[1]]
            z = net.apply(variables, z, method=lambda s, z, layer=layer: getattr(s, layer).inverse(z))
            _, logdet = net.apply(variables, z, method=lambda s, z, layer=layer: getattr(s, layer)(z))
            o.check(f"out/forward/{name}/x", z, image=True)
            o.check(f"out/forward/{name}/logdet", jnp.broadcast_to(-logdet, o[f"out/forward/{name}/logdet"].shape))
        o.check_whole()
