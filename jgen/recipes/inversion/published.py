"""Published weights of pSp's and e4e's encoders as runs of experiments.inversion, with their generator as a run of its own."""

from pathlib import Path

import jax.numpy as jnp

from jgen import convert
from jgen.config.inversion import EncoderConfig
from jgen.convert.torch_files import torch_options
from jgen.errors import UserError
from jgen.models.style_encoder import GradualStyleEncoder
from jgen.recipes.gan.published import Published, same_network, stylegan2_weights
from jgen.recipes.inversion.encoder import splits

KINDS = {"GradualStyleEncoder": "psp", "Encoder4Editing": "e4e"}
"""{the authors' encoder_type: ours}."""


def encoder_file(path: Path) -> Published:
    """A .pt of pSp or e4e with its StyleGAN2. Raises UserError for any other file, and for another encoder than those two."""
    weights = convert.load_weights(path, "state_dict")
    kind = str(torch_options(path, "opts").get("encoder_type", ""))
    if kind not in KINDS:
        raise UserError(f"file={path}: its encoder_type is {kind or 'not there'}; must be {' or '.join(KINDS)}")
    given, own = convert.part(weights, "encoder"), convert.part(weights, "decoder")
    if not given or not own or "latent_avg" not in weights:
        raise UserError(f"file={path}: must hold an encoder, a decoder and latent_avg")
    generator = stylegan2_weights(path, {**own, "latent_avg": weights["latent_avg"]})
    data = generator.groups["data"]
    rows = 2 * data.resolution.bit_length() - 4
    net, found = convert.psp.gradual_style_encoder(given, n_styles=rows)
    convs = sum(name.startswith("styles.0.convs.") and name.endswith("weight") for name in given)
    side = min(16 << convs, data.resolution)
    ours = GradualStyleEncoder(rows, generator.groups["style"].w_dim, splits(rows), tuple(net.channels), tuple(net.units))
    same_network(net, ours)
    config = EncoderConfig(encoder=KINDS[kind], channels=tuple(net.channels), units=tuple(net.units), side=side)  # pyright: ignore
    step = jnp.asarray(config.delta_from + rows * config.delta_every, jnp.int32)  # from which on e4e has all of its deltas
    extra = {**generator.extra, "encoder": {"batch_stats": found["batch_stats"], "step": step}}
    params = {"g": generator.params["g"], "encoder": found["params"]}
    groups = {"data": data, "inversion": config}
    return Published("experiments.inversion", groups, params, extra, generator)
