"""Published weights of StyleGANs as runs of their experiments: the settings that lead to the same network, and the weights.

A generator is compared with the one that the settings lead to, field by field, so that no argument of the authors' is passed
over. What a file lacks, such as its discriminator, is fresh in the run.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jgen import convert
from jgen.config import DataConfig, GANConfig, StyleConfig
from jgen.config.alias_free import AliasFreeConfig
from jgen.config.gan import ArchitectureConfig
from jgen.convert.nvidia import Network, load_networks
from jgen.errors import UserError
from jgen.models.gan import stylegan2
from jgen.recipes.gan.alias_free import alias_free_generator
from jgen.recipes.gan.networks import stylegan1_generator, stylegan2_discriminator, stylegan2_generator
from jgen.types import Extra, Params

Weights = dict[str, np.ndarray]
ReadD = Callable[[], tuple[stylegan2.Discriminator, Any]]
"""Reads a discriminator and its variables. Raises UserError as its converter does."""
BATCH = 32
"""Images a step of a training that begins from such a run, unless another number is given."""
OF_MAPPING = ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "mapping_kwargs")
CLAMP = 256
"""conv_clamp of the StyleGAN2 in StyleGAN3's code, whose arguments are not grouped, unless they name it."""

FADED = 2**30
"""Steps after which StyleGAN's last level is whole."""


class Published(NamedTuple):
    """A file of weights as a run."""

    module: str
    """The experiment."""
    groups: Mapping[str, Any]
    """The groups of its config that differ from its defaults."""
    params: Params
    """Weights of its players; of those that are missing a run has fresh ones."""
    extra: Extra
    generator: "Published | None" = None
    """The generator of an encoder, as a run of its own."""
    class_table: np.ndarray | None = None
    """[classes, 320]: embeddings that StyleGAN-XL's D has too; a file of the run's folder."""


def same_network(made: nn.Module, ours: nn.Module, passed_over: tuple[str, ...] = ()) -> None:
    """Raises UserError that names the first argument of a network which the settings of a run can't express."""
    for field in fields(made):
        if field.name in ("parent", "name", *passed_over):
            continue
        theirs, own = getattr(made, field.name), getattr(ours, field.name)
        if theirs != own:
            raise UserError(f"{field.name}={theirs}: a run has {own}; such a network is read in Python, by jgen.convert")


def data_of(path: Path, g: Any) -> DataConfig:
    """The data of a run that makes a generator's images. Raises UserError for images that no set has."""
    side, channels, classes = g.resolution, g.image_channels, g.c_dim
    shape = (side, side, channels)
    if channels not in (1, 3):
        raise UserError(f"file={path}: makes images of {channels} channels; a run's have 1 or 3")
    return DataConfig(f"folder:{path.stem}", BATCH, side, channels=channels, shape=shape, num_classes=classes)


def _stylegan_groups(path: Path, g: Any, channel_base: int, channel_max: int) -> dict[str, Any]:
    """The groups that StyleGANs share, of a generator with their fields."""
    return {
        "data": data_of(path, g),
        "gan": GANConfig(g.z_dim, channel_base, channel_max, bool(g.c_dim)),
        "style": StyleConfig(g.w_dim, g.mapping_layers, g.mapping_lr_mul),
    }


def averaged_generator(networks: Mapping[str, Network], path: Path, marks: Mapping[str, str]) -> Network:
    """The averaged generator of a pickle. marks: {a weight's name: the experiment that has it}, this one's first."""
    found = networks.get("G_ema", networks.get("G", networks.get("")))
    if found is None:
        raise UserError(f"file={path}: holds no generator (G_ema); there are {', '.join(networks)}")
    own, *others = marks
    if own not in found.weights:
        other = next((marks[name] for name in others if name in found.weights), "")
        hint = f"; import it by experiments.{other}" if other else ""
        raise UserError(f"file={path}: is no generator of {marks[own]} (it has no {own}){hint}")
    return found


def stylegan2_file(path: Path) -> Published:
    """A .pkl of StyleGAN2-ADA's or StyleGAN3's code, or rosinality's .pt, as a run of experiments.stylegan2.

    Raises UserError for any other file, and for a network that the experiment can't make.
    """
    if path.suffix != ".pkl":
        return stylegan2_weights(path, convert.load_weights(path, "g_ema"), _rosinality_d(path))
    networks = load_networks(path)
    made = averaged_generator(networks, path, {"synthesis.b4.const": "stylegan2", "synthesis.input.freqs": "stylegan3"})
    options, grouped = made.options, "synthesis_kwargs" in made.options
    if not grouped:
        own = {name: options[name] for name in OF_MAPPING if name in options}
        options = {**own, "synthesis_kwargs": {"conv_clamp": CLAMP, **{k: v for k, v in options.items() if k not in own}}}
    net, found = convert.stylegan2.generator(made.weights, **options)
    return _stylegan2(path, net, found, _discriminator_of(networks, {} if grouped else {"conv_clamp": CLAMP}))


def _discriminator_of(networks: Mapping[str, Network], usual: Mapping[str, Any]) -> ReadD | None:
    """A reader of a pickle's StyleGAN2 discriminator; None where there is none. usual: arguments that it need not name."""
    d = networks.get("D")
    return None if d is None else lambda: convert.stylegan2.discriminator(d.weights, **{**usual, **d.options})


def _rosinality_d(path: Path) -> Weights:
    """Weights of the discriminator of a file; none where there are none."""
    try:
        return convert.load_weights(path, "d")
    except UserError:
        return {}


def stylegan2_weights(path: Path, weights: Mapping[str, np.ndarray], d: Mapping[str, np.ndarray] | None = None) -> Published:
    """Weights in rosinality's names, with the mean style as "latent_avg". d: those of the discriminator."""
    named = dict(weights)
    mean = named.pop("latent_avg", None)
    if mean is None:
        raise UserError(f"file={path}: has no latent_avg, the mean style, which runs truncate to")
    net, found = convert.stylegan2_pytorch.generator(named, latent_avg=mean)
    judge = {name: array for name, array in (d or {}).items() if name != "latent_avg"}
    return _stylegan2(path, net, found, (lambda: convert.stylegan2_pytorch.discriminator(judge)) if judge else None)


def _stylegan2(path: Path, net: stylegan2.Generator, found: Mapping[str, Any], discriminator: ReadD | None) -> Published:
    groups = _stylegan_groups(path, net, net.channel_base, net.channel_max)
    own = ArchitectureConfig(net.architecture, conv_clamp=net.conv_clamp or 0.0)
    same_network(_of_usual_mapping(net), stylegan2_generator(groups["gan"], groups["style"], own, groups["data"]))
    params = {"g": found["params"]}
    if discriminator is not None:
        own, params = _with_discriminator(path, discriminator, own, groups, params)
    return Published("experiments.stylegan2", {**groups, "architecture": own}, params, averages(path, found))


def _of_usual_mapping(net: Any) -> Any:
    """A network of StyleGAN2 without the arguments of its mapping that change nothing.

    NVIDIA's conversions of TensorFlow's networks name widths that are those of the style anyway, and a mapping of labels for
    discriminators that have none.
    """
    usual: dict[str, Any] = {}
    if isinstance(net, stylegan2.Generator):
        usual |= {"layer_features": None} if net.layer_features == net.w_dim else {}
        usual |= {"embed_features": None} if not net.c_dim or net.embed_features == net.w_dim else {}
    elif not net.c_dim:
        named = ("cmap_dim", "mapping_layers", "mapping_lr_mul", "embed_features", "layer_features", "mapping_activation")
        usual |= {name: getattr(stylegan2.Discriminator(), name) for name in named}
    return net.clone(**usual)


def averages(path: Path, found: Mapping[str, Any]) -> Extra:
    """The mean style of converted weights. Raises UserError where there is none."""
    if found["w_avg"] is None:
        raise UserError(f"file={path}: has no mean style (w_avg), which runs truncate to")
    return {"w_avg": found["w_avg"]}


def _with_discriminator(
    path: Path, read: ReadD, own: ArchitectureConfig, groups: Mapping[str, Any], params: Params
) -> tuple[ArchitectureConfig, Params]:
    """The settings and players with a file's discriminator; without where a run's is another, which is printed."""
    try:
        net, found = read()
        if not net.group:
            raise UserError("group: is the whole batch")
        full = ArchitectureConfig(own.generator, net.architecture, net.group, net.conv_clamp or 0.0)
        same_network(_of_usual_mapping(net), stylegan2_discriminator(groups["gan"], full, groups["data"]))
        if full.conv_clamp != own.conv_clamp:
            raise UserError(f"conv_clamp={full.conv_clamp}: is {own.conv_clamp} in the generator")
    except UserError as error:
        print(f"{path}: its discriminator is left out, and a run's is fresh ({error})")
        return own, params
    return full, {**params, "d": found["params"]}


def stylegan3_file(path: Path) -> Published:
    """A .pkl of StyleGAN3 (T or R) as a run of experiments.stylegan3. Raises UserError as `stylegan2_file` does."""
    networks = load_networks(path)
    made = averaged_generator(networks, path, {"synthesis.input.freqs": "stylegan3", "synthesis.b4.const": "stylegan2"})
    net, found = convert.stylegan3.generator(made.weights, **made.options)
    design, inner = net.layers[0].design, [layer for layer in net.layers if not layer.to_rgb]
    radial = design.use_radial_filters
    wide = 2 if radial else 1
    base, most = (made.options.get(name, usual) for name, usual in (("channel_base", 32768), ("channel_max", 512)))
    groups = _stylegan_groups(path, net, base // wide, most // wide)
    own = AliasFreeConfig("r" if radial else "t", len(inner), sum(each.critical for each in inner), design.margin_size)
    same_network(net, alias_free_generator(groups["gan"], groups["style"], own, groups["data"]), ("beta",))
    params, architecture = {"g": found["params"]}, ArchitectureConfig()
    if (discriminator := _discriminator_of(networks, {"conv_clamp": CLAMP})) is not None:
        # StyleGAN3's generator has a limit of its own, so that the setting is D's alone.
        clamp = networks["D"].options.get("conv_clamp", CLAMP) or 0.0
        start = ArchitectureConfig(conv_clamp=clamp)
        architecture, params = _with_discriminator(path, discriminator, start, groups, params)
    extra = {**averages(path, found), "g": found["buffers"]}
    return Published("experiments.stylegan3", {**groups, "own": own, "architecture": architecture}, params, extra)


def stylegan_file(path: Path) -> Published:
    """StyleGAN's generator, in genforce's .pth or an .npz of the TensorFlow variables, as a run of experiments.stylegan.

    Sizes follow the weights; the rest is as the authors published it. Raises UserError as `stylegan2_file` does.
    """
    weights = convert.load_weights(path, "" if path.suffix == ".npz" else "generator_smooth")
    weights.pop("latent_avg", None)
    net, found = convert.stylegan1.generator(weights, **_stylegan1_sizes(path, weights))
    groups = _stylegan_groups(path, net, net.channel_base, net.channel_max)
    same_network(net, stylegan1_generator(groups["gan"], groups["style"], groups["data"]))
    extra = {**averages(path, found), "fade_step": jnp.asarray(FADED, jnp.int32)}
    return Published("experiments.stylegan", groups, {"g": found["params"]}, extra)


def _stylegan1_sizes(path: Path, weights: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The sizes of a network by its weights, in the port's names or TensorFlow's."""
    layers = [int(m[1]) for name in weights if (m := re.fullmatch(r"synthesis\.layer(\d+)\.bias", name))]
    sides = [int(m[1]) for name in weights if (m := re.fullmatch(r"(?:G_synthesis/)?(\d+)x\1/.*", name))]
    if not layers and not sides:
        raise UserError(f"file={path}: is no generator of StyleGAN")
    side = max(sides) if sides else 4 << max(layers) // 2
    named = convert.stylegan1.as_port(weights, side)
    try:
        return _sizes_of_port(named, side)
    except (KeyError, IndexError) as error:
        raise UserError(f"file={path}: is no whole generator of StyleGAN; it lacks {error}") from error


def _sizes_of_port(named: Mapping[str, np.ndarray], side: int) -> dict[str, Any]:
    depth = sum(bool(re.fullmatch(r"mapping\.dense\d+\.weight", name)) for name in named)
    first, last = named["mapping.dense0.weight"], named[f"mapping.dense{depth - 1}.weight"]
    labels, levels = named.get("mapping.label_weight"), side.bit_length() - 2
    widths = [named[f"synthesis.layer{2 * i}.bias"].size for i in range(levels)]
    return {
        "resolution": side,
        "z_space_dim": first.shape[1] // (1 if labels is None else 2),  # the label's code beside it is as wide
        "w_space_dim": last.shape[0],
        "label_size": 0 if labels is None else labels.shape[0],
        "mapping_layers": depth,
        "mapping_fmaps": first.shape[0],
        "image_channels": named[f"synthesis.output{levels - 1}.bias"].size,
        "fmaps_base": widths[-1] * side,
        "fmaps_max": max(widths),
    }
