"""TarFlow against its authors' code."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import load_weights
from jgen.convert.tarflow import tarflow
from jgen.models.tarflow import PatchGuidance, patchify, unpatchify
from jgen.objectives.flow import denoised, flow_energy, tarflow_nll
from jgen.train.rates import warmup_cosine
from tests.models.whole import check_gradients
from tests.oracle import Oracle, files

pytestmark = [pytest.mark.oracle, pytest.mark.slow]


def arguments(config):
    """Those of the constructor; a head's width is given under a name that explains it."""
    own = {("head_dim" if k.startswith("head_dim") else k): v for k, v in config.items()}
    own.pop("lr_schedule", None)
    return own


def labels(o):
    """{tag: its labels} of the passes to the latents that the file has."""
    found = {"cond": "in/y", "dropped": "out/y_dropped", "mean_class": None, "uncond": None}
    return {tag: None if y is None else jnp.asarray(o[y]) for tag, y in found.items() if f"out/{tag}/z" in o}


@pytest.mark.parametrize("path", files("tarflow", "tarflow"))
def test_tarflow(path):
    o = Oracle(path)
    options, weights = arguments(o.config), load_weights(path)
    net, variables = tarflow(weights, **options)
    params, variance = {"params": variables["params"]}, variables["prior"]["variance"]
    x_clean, std = jnp.asarray(o.nhwc("in/x")), float(o["in/noise_std"])
    x, side = x_clean + std * jnp.asarray(o.nhwc("in/eps")), x_clean.shape[1]
    o.check("out/x_noisy", x, image=True)
    o.check(
        "out/patches", patchify(x if np.allclose(patchify(x, net.patch), o["out/patches"], atol=1e-5) else x_clean, net.patch)
    )

    @jax.jit
    def forward(params, x, label):
        def loss(params, x):
            outputs, logdet = net.apply(params, x, label, method="through")
            return flow_energy(outputs[-1], logdet), (outputs, logdet)

        return jax.value_and_grad(loss, (0, 1), has_aux=True)(params, x)

    @jax.jit
    def per_image(params, x, label):
        z, logdet = net.apply(params, x, label)
        return 0.5 * jnp.mean(z**2, (1, 2)) - logdet

    if "out/y_dropped" in o:
        y = np.where(o["in/u_drop"] < o["in/drop_label"], -1, o["in/y"])
        np.testing.assert_array_equal(o["out/y_dropped"], y)
        o.checked.add("out/y_dropped")
    for tag, label in labels(o).items():
        (value, (outputs, logdet)), (by_weight, by_x) = forward(params, x, label)
        o.check(f"out/{tag}/z", outputs[-1])
        check_zero(o, f"out/{tag}/logdet", logdet)
        o.check(f"out/{tag}/loss", value)
        for i in range(net.blocks):
            if f"out/{tag}/block/{i}" in o:
                o.check(f"out/{tag}/block/{i}", outputs[i])
        at = f"out/grad/{tag}/"
        if f"{at}x" in o:
            o.check(f"{at}x", by_x, image=True)
        if any(n.startswith(f"{at}w/") or n.startswith(f"{at}blocks") for n in o.names):
            prefix = f"{at}w/" if any(n.startswith(f"{at}w/") for n in o.names) else at
            check_gradients(o, lambda w: tarflow(w, **options)[1], weights, by_weight["params"], prefix, ("x",))
        if tag in ("cond", "uncond"):
            z = outputs[-1]

    if "out/classifier/losses" in o:
        classes = range(options["num_classes"])
        o.check("out/classifier/losses", jnp.stack([per_image(params, x, jnp.full(len(x), c)) for c in classes]))
    if "out/update_prior/var" in o:
        o.check("out/update_prior/var", 0.9 * variance + 0.1 * jnp.mean(z**2, 0))
    o.check("out/unpatchify_z", unpatchify(jnp.asarray(o["in/z_sample"]), net.patch, side, side), image=True)

    runs = {name: run for names, run in o.meta["reverse_runs"].items() for name in names.split(" / ")}
    scaled = jnp.asarray(o["in/z_sample"]) * jnp.sqrt(variance)[None]
    samples = {}
    for tag in dict.fromkeys(n.split("/")[2] for n in o.names if n.startswith("out/reverse/")):
        label = None if tag in ("mean_class", "uncond") or "in/y" not in o else jnp.asarray(o["in/y"])
        if tag == "y_minus1":  # theirs takes the last class there; a label -1 is the mean of them here
            minus = o["in/y_with_minus1"]
            label = jnp.asarray(np.where(minus < 0, options["num_classes"] - 1, minus))
        run = runs.get(tag, {})
        names = {"guidance": "scale", "guide_what": "what", "attn_temp": "temperature", "annealed_guidance": "annealed"}
        guidance = PatchGuidance(**{names[k]: v for k, v in run.items()})
        back = jax.jit(lambda v, z, label, guidance=guidance: net.apply(v, z, label, guidance, method="back"))
        images = back(params, scaled, label)
        samples[tag] = images[-1]
        for i in range(len(images)):
            if f"out/reverse/{tag}/seq/{i}" in o:
                o.check(f"out/reverse/{tag}/seq/{i}", images[i], image=True)
        o.check(f"out/reverse/{tag}/x", images[-1], image=True)

    tag, label = ("cond", jnp.asarray(o["in/y"])) if "cond" in samples else ("uncond", None)
    sample = samples[tag]
    (value, _), (_, slope) = forward(params, sample, label)
    o.check("out/denoise/loss", value)
    o.check("out/denoise/grad_x", slope, image=True)
    o.check("out/denoise/lr", sample.size * std**2)

    def energy(x):
        return flow_energy(*net.apply(params, x, label))

    whole = jax.jit(lambda sample: denoised(energy, sample, std))(sample)
    o.check("out/denoise/x", whole, image=True)
    if "out/denoise/x_half_lr" in o:
        o.check("out/denoise/x_half_lr", (sample + whole) / 2, image=True)

    x = 2 * (o.nhwc("in/bpd/image_uint8").astype(np.float32) + o.nhwc("in/bpd/u")) / 256 - 1
    o.check("out/bpd/x", x, image=True)
    z, logdet = jax.jit(net.apply)(params, x)
    check_zero(o, "out/bpd/logdet", logdet)
    prior = -jnp.sum(tarflow_nll(z, jnp.zeros(len(z)))[:, None] + np.log(128), 1) * z[0].size
    o.check("out/bpd/prior_log_p", prior)
    own = (tarflow_nll(z, logdet) + np.log(128)) / np.log(2)
    o.check("out/bpd/bpd_own_dims", own)
    if "out/bpd/bpd" in o:  # of images with three channels, which their script takes for granted
        dims = 3 * side * side
        o.check("out/bpd/bpd", (-prior / dims - logdet) / np.log(2))
    if "out/lr_schedule/lr" in o:
        given = o.config["lr_schedule"]
        steps, warmup, most = given["total_steps"], given["warmup_steps"], given["max_lr"]
        rate = warmup_cosine(most, steps, warmup, given["min_lr"] / most, given["min_lr"] / most)
        o.check("out/lr_schedule/lr", rate(jnp.arange(steps + 1)))
    o.check_whole()


def check_zero(o, name, value):
    """A log-determinant, which may be zero by construction."""
    if not np.any(o[name]):
        np.testing.assert_array_equal(np.asarray(value), o[name])
        o.checked.add(name)
    else:
        o.check(name, value)
