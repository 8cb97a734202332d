"""U-Nets, transformers and autoencoders of diffusion against their authors': outputs and gradients."""

import jax
import jax.numpy as jnp
import pytest

from jgen import convert
from tests.oracle import Oracle, files
from tests.test_oracle_adm import find

pytestmark = pytest.mark.oracle


def outputs_and_gradients(o, apply, params, inputs):
    """y, gradients of sum(y * cotangent) by parameters and by inputs."""
    cotangent = jnp.asarray(o.nhwc("in/cotangent/y"))

    @jax.jit
    def run(params, inputs):
        def weighed(params, inputs):
            y = apply(params, inputs)
            return jnp.sum(y * cotangent), y

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, inputs)

    (grads, input_grads), y = run(params, inputs)
    return y, grads, input_grads


def check_parameters(o, grads, of):
    """Every gradient of a parameter that the file has; of(name) -> the official name whose path it has here, or None."""
    checked = 0
    for name in o.names:
        plain = name.removeprefix("out/grad/")
        if not name.startswith("out/grad/") or plain.startswith("in/") or (place := of(plain)) is None:
            continue
        leaf = find(grads, place)
        if leaf.ndim == 4:
            leaf = leaf.transpose(3, 2, 0, 1)
        o.check(name, leaf.T.reshape(o[name].shape) if leaf.ndim == 2 else leaf)
        checked += 1
    assert checked >= 2


EDM = {"songunet": convert.edm.song_unet, "dhariwalunet": convert.edm.dhariwal_unet}


@pytest.mark.parametrize(
    "kind,path", [pytest.param(k, *p.values, marks=p.marks, id=p.id) for k in EDM for p in files("edm", k)]
)
def test_u_nets_of_edm(kind, path):
    o = Oracle(path)
    config = {k: v for k, v in o.config.items() if k != "network"}
    net, variables = EDM[kind](convert.load_weights(path), **config)
    inputs = {"x": jnp.asarray(o.nhwc("in/x")), **{k: jnp.asarray(o[f"in/{k}"]) for k in ("class_labels", "augment_labels")}}
    noise = jnp.asarray(o["in/t_noise_labels"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], noise, i["class_labels"], i["augment_labels"])

    y, grads, by_input = outputs_and_gradients(o, apply, variables["params"], inputs)
    o.check("out/y", y, image=True)
    o.check("out/grad/in/x", by_input["x"], image=True)
    for name in ("class_labels", "augment_labels"):
        o.check(f"out/grad/in/{name}", by_input[name])
    check_parameters(o, grads, lambda name: name)
    none = net.apply(variables, inputs["x"], noise, jnp.full(2, net.classes), inputs["augment_labels"])
    zero = net.apply(variables, inputs["x"], noise, jnp.zeros((2, net.classes)), inputs["augment_labels"])
    assert jnp.array_equal(none, zero)


def test_dit_has_labels_times_and_guidance_of_the_original():
    for parameter in files("dit", "dit_original"):
        (path,) = parameter.values
        if path is None:
            pytest.skip(f"no oracle: {parameter.id}")
        o = Oracle(path)
        net, variables = convert.dit.dit(convert.load_weights(path), **o.config)
        t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])

        def apply(params, i):
            return net.apply({"params": params}, i["x"], t, label)  # noqa: B023

        y, grads, by_input = outputs_and_gradients(o, apply, variables["params"], {"x": jnp.asarray(o.nhwc("in/x"))})
        o.check("out/y", y, image=True)
        o.check("out/grad/in/x", by_input["x"], image=True)
        flat = lambda name: f"embedder.{name.replace('.', '_').replace('_bias', '.bias')}"  # noqa: E731
        names = {
            "x_embedder.proj.bias": "x_embedder_proj.bias",
            "t_embedder.mlp.0.bias": flat("t_embedder.mlp.0.bias"),
            "blocks.0.adaLN_modulation.1.bias": "blocks.0.adaLN_modulation.1.bias",
            "blocks.1.attn.qkv.bias": "blocks.1.attn_qkv.bias",
            "final_layer.linear.bias": "final_layer_linear.bias",
        }
        check_parameters(o, grads, names.__getitem__)
        # Its guidance takes the first half of x twice, and mixes the first three channels only.
        half = jnp.asarray(o.nhwc("in/x"))[:2]
        labels, times = jnp.asarray(o["in/cfg_labels"]), jnp.asarray(o["in/cfg_timesteps"])
        out = net.apply(variables, jnp.concatenate([half, half]), times, labels)
        c, u = jnp.split(out[..., :3], 2)
        mixed = u + o.config["cfg_scale"] * (c - u)
        o.check("out/cfg", jnp.concatenate([jnp.concatenate([mixed, mixed]), out[..., 3:]], -1), image=True)


@pytest.mark.parametrize("path", [p for p in files("dit", "dit") if p.id == "dit"])
def test_dit_of_diffusers(path):
    o = Oracle(path)
    net, variables = convert.dit.diffusers(convert.load_weights(path), **o.config)
    t, label = jnp.asarray(o["in/timesteps"]), jnp.asarray(o["in/labels"])

    def apply(params, i):
        return net.apply({"params": params}, i["x"], t, label)

    y, grads, by_input = outputs_and_gradients(o, apply, variables["params"], {"x": jnp.asarray(o.nhwc("in/x"))})
    o.check("out/y", y, image=True)
    o.check("out/grad/in/x", by_input["x"], image=True)
    names = {
        "pos_embed.proj.bias": "x_embedder_proj.bias",
        "transformer_blocks.0.norm1.linear.bias": "blocks.0.adaLN_modulation.1.bias",
        "proj_out_1.bias": "final_layer_adaLN_modulation_1.bias",
    }
    check_parameters(o, grads, names.get)
