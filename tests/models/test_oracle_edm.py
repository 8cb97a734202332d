"""EDM's U-Nets against their authors': outputs and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.models.edm import DhariwalUNet, SongUNet, fourier, positional
from jgen.nn.embed import timestep_embedding
from jgen.nn.norm import GroupNorm, groups_of
from jgen.nn.resample import downsample, upsample
from tests.models.whole import check_blocks, outputs
from tests.oracle import Oracle, files, official_gradient

pytestmark = pytest.mark.oracle


EDM = {"SongUNet": convert.edm.song_unet, "DhariwalUNet": convert.edm.dhariwal_unet}
"""{network of a file's configuration: its converter}."""


def parts_without_module(o, net, seen, params, x, noise):
    """{name: output} of EDM's parts that are no module here: embeddings of noise, resamplers, norms done with a convolution."""
    song = isinstance(net, SongUNet)
    if song:
        width = net.channels * net.channel_mult_noise
        waves = fourier(noise, params["freqs"]) if net.embedding == "fourier" else positional(noise, width)
        # Theirs begins with cosines, and is swapped after.
        found = {"map_noise": jnp.roll(waves, waves.shape[-1] // 2, -1)}
    else:
        found = {"map_noise": timestep_embedding(noise, net.channels)}

    def norm(at, features):
        return GroupNorm(groups_of(features.shape[-1]), 1e-6 if song else 1e-5).apply({"params": params[at]}, features)

    sides = [o.config["img_resolution"] >> level for level in range(len(net.channel_mult))]
    last = {side: outputs(seen, f"dec_{side}x{side}_block{net.num_blocks}") for side in sides}
    if not song:
        return found | {"out_norm": norm("out_norm", last[sides[0]])}
    small, image = x, None
    for side in sides[1:]:
        small = found[f"enc_{side}x{side}_aux_down"] = downsample(small, net.taps)
    for side in reversed(sides):
        at = f"dec_{side}x{side}_aux"
        if f"{at}_norm" not in params:
            continue
        found[f"{at}_norm"] = norm(f"{at}_norm", last[side])
        if image is not None:
            image = found[f"{at}_up"] = upsample(image, net.taps)
        image = outputs(seen, f"{at}_conv") + (0 if image is None else image)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", [p for kind in EDM for p in files("edm", kind.lower())])
def test_u_nets_of_edm(path):
    o = Oracle(path)
    config, weights, build = o.config, convert.load_weights(path), EDM[o.config["network"]]
    net, variables = build(weights, **config)
    # The snapshots of training hold more than the network, and that wrapped.
    snapshot = {f"ema.model.{k}": v for k, v in weights.items()} | {"augment_pipe.Hz_geom": np.ones(3)}
    jax.tree.map(np.testing.assert_array_equal, build(snapshot, **config)[1], variables)
    given = {"x": jnp.asarray(o.nhwc("in/x"))}
    given |= {k: jnp.asarray(o[f"in/{k}"]) for k in ("class_labels", "augment_labels") if f"in/{k}" in o}
    noise, cotangent = jnp.asarray(o["in/t_noise_labels"]), jnp.asarray(o.nhwc("in/cotangent/y"))

    @jax.jit
    def run(params, given):
        def weighed(params, given):
            how = dict(capture_intermediates=True, mutable=["intermediates"])
            labels = given.get("class_labels"), given.get("augment_labels")
            y, seen = net.apply({"params": params}, given["x"], noise, *labels, **how)
            return jnp.sum(y * cotangent), (y, seen["intermediates"])

        return jax.grad(weighed, argnums=(0, 1), has_aux=True)(params, given)

    (grads, by_input), (y, seen) = run(variables["params"], given)
    o.check("out/y", y, image=True)
    for name in (n for n in o.names if n.startswith("out/grad/")):
        part = name.removeprefix("out/grad/")
        if part.startswith("in/"):
            gradient = by_input[part.removeprefix("in/")]
            o.check(name, gradient, image=gradient.ndim == 4)
        else:
            o.check(name, official_gradient(lambda w: build(w, **config)[1], weights, part, grads))
    if any(n.startswith("out/block/") for n in o.names):
        check_blocks(o, {**seen, **parts_without_module(o, net, seen, variables["params"], given["x"], noise)})
    o.check_whole()
    if net.classes:
        rest = given.get("augment_labels")
        none = net.apply(variables, given["x"], noise, jnp.full(len(noise), net.classes), rest)
        zero = net.apply(variables, given["x"], noise, jnp.zeros((len(noise), net.classes)), rest)
        assert jnp.array_equal(none, zero)


@pytest.mark.parametrize(
    "kind,option,message",
    [
        ("SongUNet", {"channel_mult_embb": 2}, r"channel_mult_embb: no option of SongUNet \(did you mean channel_mult_emb"),
        ("SongUNet", {"encoder_type": "wide"}, "encoder_type=wide: must be standard or skip or residual here"),
        ("SongUNet", {"network": "DhariwalUNet"}, "network=DhariwalUNet: must be SongUNet here"),
        ("DhariwalUNet", {"encoder_type": "skip"}, "encoder_type: no option of DhariwalUNet"),
    ],
)
def test_edm_refuses_options_by_name(kind, option, message):
    with pytest.raises(ValueError, match=message):
        EDM[kind]({}, img_resolution=8, in_channels=3, out_channels=3, **option)


def test_edm_attends_where_the_reference_does():
    """No resolutions are none, and below 64 channels DhariwalUNet's converter has no attention."""
    small = dict(img_resolution=8, in_channels=3, out_channels=3, model_channels=32, channel_mult=[1, 2], num_blocks=1)

    def attending(net):
        x, noise = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1)
        params = jax.eval_shape(net.init, jax.random.key(0), x, noise)["params"]
        return {name for name, part in params.items() if "qkv" in part}

    with pytest.raises(ValueError, match="missing") as refused:
        EDM["SongUNet"]({}, **small, attn_resolutions=[])
    assert "enc_8x8_block0/qkv" not in str(refused.value)
    nets = DhariwalUNet(channels=32, channel_mult=(1, 2), num_blocks=1, attention_resolutions=(8, 4), attend_narrow=False)
    assert attending(nets) == {"enc_4x4_block0", "dec_4x4_in0", "dec_4x4_block0", "dec_4x4_block1"}
    assert attending(nets.clone(attend_narrow=True)) > attending(nets)
    assert attending(SongUNet(channels=16, channel_mult=(1, 2), num_blocks=1, attention_resolutions=())) == {"dec_4x4_in0"}
