"""StyleGAN2 in the names of rosinality's files: the networks of the authors' files, renamed layer by layer."""

import jax
import numpy as np
import pytest

from jgen import convert
from jgen.errors import UserError
from tests.oracle import Oracle, files

pytestmark = pytest.mark.oracle
KERNEL = np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64


def published_generator(weights):
    """The file that convert_weight.py of that repository writes of the authors' generator, in the order of its modules."""
    sides = sorted({int(name.split(".")[1][1:]) for name in weights if name.startswith("synthesis.b")})
    file, layers = {"input.input": weights["synthesis.b4.const"][None]}, 0
    while f"mapping.fc{layers}.weight" in weights:
        for kind in ("weight", "bias"):
            file[f"style.{layers + 1}.{kind}"] = weights[f"mapping.fc{layers}.{kind}"]
        layers += 1

    def modulated(target, source):
        file[f"{target}.conv.weight"] = weights[f"{source}.weight"][None]
        for kind in ("weight", "bias"):
            file[f"{target}.conv.modulation.{kind}"] = weights[f"{source}.affine.{kind}"]

    convs = [f"synthesis.b{side}.conv{i}" for side in sides for i in ((1,) if side == 4 else (0, 1))]
    for i, source in enumerate(convs):
        target = f"convs.{i - 1}" if i else "conv1"
        modulated(target, source)
        file[f"{target}.noise.weight"] = weights[f"{source}.noise_strength"].reshape(1)
        file[f"{target}.activate.bias"] = weights[f"{source}.bias"]
        file[f"noises.noise_{i}"] = weights[f"{source}.noise_const"][None, None]
        if i % 2:
            file[f"{target}.conv.blur.kernel"] = 4 * KERNEL
    for i, side in enumerate(sides):
        target = f"to_rgbs.{i - 1}" if i else "to_rgb1"
        modulated(target, f"synthesis.b{side}.torgb")
        file[f"{target}.bias"] = weights[f"synthesis.b{side}.torgb.bias"].reshape(1, -1, 1, 1)
        if i:
            file[f"{target}.upsample.kernel"] = 4 * KERNEL
    return file


def published_discriminator(weights):
    sides = sorted({int(name.split(".")[0][1:]) for name in weights if name.startswith("b")}, reverse=True)
    file = {"convs.0.0.weight": weights[f"b{sides[0]}.fromrgb.weight"], "convs.0.1.bias": weights[f"b{sides[0]}.fromrgb.bias"]}
    for i, side in enumerate(sides[:-1], 1):
        file[f"convs.{i}.conv1.0.weight"] = weights[f"b{side}.conv0.weight"]
        file[f"convs.{i}.conv1.1.bias"] = weights[f"b{side}.conv0.bias"]
        file[f"convs.{i}.conv2.0.kernel"] = file[f"convs.{i}.skip.0.kernel"] = KERNEL
        file[f"convs.{i}.conv2.1.weight"] = weights[f"b{side}.conv1.weight"]
        file[f"convs.{i}.conv2.2.bias"] = weights[f"b{side}.conv1.bias"]
        file[f"convs.{i}.skip.1.weight"] = weights[f"b{side}.skip.weight"]
    file |= {"final_conv.0.weight": weights["b4.conv.weight"], "final_conv.1.bias": weights["b4.conv.bias"]}
    for i, layer in enumerate(("fc", "out")):
        for kind in ("weight", "bias"):
            file[f"final_linear.{i}.{kind}"] = weights[f"b4.{layer}.{kind}"]
    return file


PLAIN = {
    "c_dim": 0, "use_noise": True, "activation": "lrelu", "embed_features": None, "layer_features": None,
    "resample_filter": [1, 3, 3, 1],
}  # fmt: skip


def fits(path, architecture):
    """Whether a file holds such a network."""
    if path.values[0] is None:  # no files on this machine: the test is skipped, and stays to say so
        return True
    config = Oracle(path.values[0]).config
    options = {**config, **config.get("mapping_kwargs", {}), **config.get("synthesis_kwargs", {})}
    plain = PLAIN | {"architecture": architecture}
    return all(options.get(name, value) == value for name, value in plain.items())


GENERATORS = [path for path in files("stylegan2", "generator") if fits(path, "skip")]
DISCRIMINATORS = [path for path in files("stylegan2", "discriminator") if fits(path, "resnet")]


def equal(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((np.asarray(x) == np.asarray(y)).all()), a, b))


@pytest.mark.parametrize("path", GENERATORS)
def test_generators(path):
    weights = convert.load_weights(path)
    plain = {k: v for k, v in weights.items() if k.startswith(("mapping.", "synthesis."))}
    keys = ("z_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs", "synthesis_kwargs")
    net, want = convert.stylegan2.generator(plain, **{k: v for k, v in Oracle(path).config.items() if k in keys})
    file, mean = published_generator(plain), weights["mapping.w_avg"]
    for latent_avg in (mean, np.tile(mean, (net.num_ws, 1))):
        ours, found = convert.stylegan2_pytorch.generator(file, latent_avg=latent_avg)
        assert equal({**found, "w_avg_beta": 0}, {**want, "w_avg_beta": 0})
        assert ours.clone(channel_base=net.channel_base, channel_max=net.channel_max) == net
    assert convert.stylegan2_pytorch.generator(file)[1]["w_avg"] is None
    damaged = {
        "blur_kernel": file | {"convs.0.conv.blur.kernel": np.ones((4, 4))},
        "widths": file | {"convs.1.conv.weight": file["convs.1.conv.weight"][:, :3]},
        "missing": {k: v for k, v in file.items() if k != "convs.0.noise.weight"},
        "stranger": file | {"stranger.weight": np.ones(3, np.float32)},
        "style.1.weight": {k: v for k, v in file.items() if not k.startswith("style")},
    }
    for named, weights in damaged.items():
        with pytest.raises(UserError, match=named):
            convert.stylegan2_pytorch.generator(weights)
    with pytest.raises(UserError, match="latent_avg"):
        convert.stylegan2_pytorch.generator(file, latent_avg=mean[:-1])


@pytest.mark.parametrize("path", DISCRIMINATORS)
def test_discriminators(path):
    config = Oracle(path).config
    weights = {k: v for k, v in convert.load_weights(path).items() if k.startswith("b")}
    net, want = convert.stylegan2.discriminator(weights, **config)
    ours, found = convert.stylegan2_pytorch.discriminator(published_discriminator(weights))
    assert equal(found, want)
    assert ours.clone(channel_base=net.channel_base, channel_max=net.channel_max) == net
    with pytest.raises(UserError, match="levels"):
        convert.stylegan2_pytorch.discriminator({})
