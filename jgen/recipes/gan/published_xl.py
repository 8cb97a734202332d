"""Published weights of StyleGAN-XL as a run of experiments.stylegan_xl, whatever stages it was grown in."""

from pathlib import Path
from typing import Any

from jgen import convert
from jgen.config.stylegan_xl import StyleGANXLConfig
from jgen.convert.nvidia import Network, load_networks
from jgen.errors import UserError
from jgen.recipes.gan.published import Published, averaged_generator, averages, data_of, same_network
from jgen.recipes.gan.stylegan_xl import layers_by_stage, xl_generator

OF_MAPPING = ("z_dim", "c_dim", "w_dim")


def stylegan_xl_file(path: Path) -> Published:
    """A .pkl of a stem, or of a generator grown on one, with its per-class centres and embeddings.

    A grown generator does not say how large its layers' stems were; it is one that doubled from stage to stage, each of as many
    layers, as the authors' are. Raises UserError for any other file, and for a network that the experiment can't make.
    """
    made = averaged_generator(load_networks(path), path, {"synthesis.input.freqs": "stylegan_xl"})
    stem, growth = _arguments(made, path)
    net, found = convert.stylegan_xl.generator(made.weights, **stem, growth=growth)
    own = StyleGANXLConfig(
        net.z_dim, net.w_dim, stem.get("channel_base", 32768), stem.get("channel_max", 512), bool(net.c_dim),
        stem_side=stem["img_resolution"], stem_layers=stem.get("num_layers", 14),
        head_layers=growth[0]["head_layers"] if growth else StyleGANXLConfig().head_layers,
        margin=net.layers[0].design.margin_size,
    )  # fmt: skip
    layers = layers_by_stage(own, net.resolution, net.image_channels)[-1][0]
    same_network(net, xl_generator(own, layers, net.c_dim), ("beta",))
    extra = {**averages(path, found), "g": found["buffers"]}
    groups, table = {"data": data_of(path, net), "own": own}, made.weights.get("mapping.embed.weight")
    classes = table[: net.c_dim] if net.c_dim and table is not None else None
    return Published("experiments.stylegan_xl", groups, {"g": found["params"]}, extra, class_table=classes)


def _arguments(made: Network, path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(arguments of the stem, those of each growth): the mapping and the synthesis are the stem's objects."""
    mapping, synthesis = (dict(made.parts.get(name, {})) for name in ("mapping", "synthesis"))
    missing = [name for name in ("z_dim", "w_dim") if name not in mapping] + [
        name for name in ("img_resolution", "img_channels") if name not in synthesis
    ]
    if missing:
        raise UserError(f"file={path}: is no generator of StyleGAN-XL (its modules do not say {', '.join(missing)})")
    sizes = {name: mapping.pop(name) for name in OF_MAPPING if name in mapping}
    mapping.pop("num_ws", None)
    synthesis.pop("w_dim", None)
    stem = {**sizes, "mapping_kwargs": mapping, **synthesis}
    if "head_layers" not in made.options:
        return stem, []
    side, last = stem["img_resolution"], made.options.get("img_resolution", 0)
    steps = []
    while side < last:
        side *= 2
        steps.append({"img_resolution": side, "head_layers": made.options["head_layers"], "up_factor": 2})
    return stem, steps
