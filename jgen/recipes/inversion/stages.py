"""The stages of an encoder's run: one for a GAN that is there, or a StyleGAN2 and the encoder after it."""

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp

from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
from jgen.config.gan import ArchitectureConfig
from jgen.config.inversion import EncoderConfig
from jgen.config.ranges import leaves, shown
from jgen.data.captions import encoded
from jgen.edit.space import StyleSpace
from jgen.errors import UserError
from jgen.metrics.perceptual import open_perceptual
from jgen.recipes.common import both, mean_metrics
from jgen.recipes.gan.stylegan2 import stylegan2_stage
from jgen.recipes.inversion.comparison import comparison
from jgen.recipes.inversion.encoder import EncoderModel
from jgen.recipes.inversion.text import TextModel
from jgen.run_folder import read_config
from jgen.train import Phase
from jgen.train.rates import Rated, rated_adam
from jgen.train.stage import Stage
from jgen.types import Batch, Extra, Key, Params


def check_gan(folder: str) -> None:
    """Raises UserError for a folder that holds no run, or one of an encoder, which would be sought for itself."""
    if read_config(Path(folder))["module"] == "experiments.inversion":
        raise UserError(f"gan={folder}: is a run of an encoder; must be that of a StyleGAN")


def _phases(model: EncoderModel, text: TextModel, config: EncoderConfig) -> tuple[list[Phase], dict[str, Rated]]:
    """The phases of a step and the players' optimizers: the encoder's, after its discriminator's; then the text encoder's."""
    phases, optimizers = [Phase("encoder", model.loss)], {"encoder": rated_adam(config.encoder_learning_rate)}
    if config.encoder == "e4e":
        phases.insert(0, Phase("w_d", model.judge_loss))
        if config.w_r1_gamma:
            phases.insert(1, Phase("w_d", model.judge_penalty, config.w_r1_every, "w_d_r1"))
        optimizers["w_d"] = rated_adam(config.w_d_learning_rate)
    if config.text:
        phases.append(Phase("text", text.loss))
        optimizers["text"] = rated_adam(config.text_learning_rate)
    return phases, optimizers


OF_E4E = ("delta_weight", "w_adversarial_weight", "w_d_learning_rate", "w_r1_gamma", "w_r1_every", "pool")
OF_TEXT = ("text_width", "text_learning_rate", "text_weight", "text_margin")
HEADS = 4
"""Heads of the text encoder's attention."""


def check_encoder(config: EncoderConfig, data: DataConfig) -> None:
    """Raises UserError for options that have no effect beside the others, and for features that there are none of."""
    idle: dict[str, str] = dict.fromkeys(("w_norm_weight",) if config.encoder == "e4e" else OF_E4E, f"on {config.encoder}")
    idle |= {} if config.text else dict.fromkeys(OF_TEXT, "without --text")
    idle |= {} if config.perceptual_weight else {"extractor": "with --perceptual-weight 0"}
    idle |= {"gan_steps": "with --gan, which is trained"} if config.gan else {}
    usual = {leaf.name: leaf.value for leaf in leaves(EncoderConfig())}
    for leaf in leaves(config):
        if leaf.name in idle and leaf.value != usual[leaf.name]:
            raise UserError(f"{leaf.name}={shown(leaf.value)}: has no effect {idle[leaf.name]}; leave it out")
    if config.side > min(data.shape[:2]):
        raise UserError(f"side={config.side}: is more than that of the images, {min(data.shape[:2])}")
    if config.text and config.text_width % HEADS:
        raise UserError(f"text_width={config.text_width}: must be a multiple of {HEADS}")
    if config.perceptual_weight and ":" not in config.extractor:  # a file may be gone where a run is only loaded
        open_perceptual(config.extractor, data.name)


def _space_of(gan: Stage, config: EncoderConfig, data: DataConfig) -> StyleSpace:
    named = f"gan={config.gan}: " if config.gan else ""
    if gan.space is None:
        raise UserError(f"{named}{gan.name} has no styles; must be a run of a StyleGAN (1, 2, 3 or XL)")
    if gan.data.shape != data.shape:
        own, other = ("x".join(map(str, shape)) for shape in (gan.data.shape, data.shape))
        raise UserError(f"{named}makes images of {own}; data.name={data.name} has {other}")
    return gan.space


def encoder_stage(
    gan: Stage, trained: tuple[Params, Extra] | None, config: EncoderConfig, data: DataConfig, train: TrainConfig
) -> Stage:
    """The stage after a GAN's, or one for a run whose (params, extra) are given.

    Raises UserError for a GAN without styles, for images of another shape than its own, and with config.text for a set without
    captions.
    """
    check_encoder(config, data)
    space = _space_of(gan, config, data)
    model = EncoderModel(config, space, data, train.dtype)
    text = TextModel(config, space, model.encode)
    caption = encoded("", data, "text=True") if config.text else None
    full = space._replace(
        encode=model.encode,
        from_sketch=model.from_sketch if config.sees == "sketches" else None,
        describe=text.describe if config.text else None,
    )

    def generator(params: Params, extra: Extra) -> tuple[Params, Extra]:
        return {"g": params["g"]}, {name: extra[name] for name in space.state}

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        params, extra = generator(*(trained or gan.init(key, batch)))
        own, state = model.init(jax.random.fold_in(key, 1))
        if caption is not None:
            own = {**own, **text.init(jax.random.fold_in(key, 2), jnp.asarray(caption))}
        return {**params, **own}, {**extra, **state}

    def begin(params: Params, extra: Extra, fresh: Params, fresh_extra: Extra) -> tuple[Params, Extra]:
        found, state = generator(params, extra)
        return {**fresh, **found}, {**fresh_extra, **state}

    phases, optimizers = _phases(model, text, config)
    return Stage(
        name="encoder",
        data=data,
        train=train,
        init=init,
        phases=phases,
        optimizers=optimizers,
        sample=gan.sample,
        options=gan.options,
        pictures=model.pictures(),
        supports=frozenset(("dtype",)),
        validate=model.held_out,
        evaluate=both(
            mean_metrics(model.held_out, *([text.loss] if config.text else [])),
            comparison(full, data, train.seed, config.extractor),
        ),
        begin=None if trained else begin,
        moved=gan.moved,
        example_inputs={} if caption is None else {"caption": caption},
        space=full,
    )


def stylegan2_first(
    config: EncoderConfig, gan: GANConfig, augmentation: AugmentConfig, style: StyleConfig, own: ArchitectureConfig,
    data: DataConfig, train: TrainConfig, sampling: StyleSampling,
) -> list[Stage]:  # fmt: skip
    """Both stages: a StyleGAN2, of config.gan_steps, and the encoder."""
    first = stylegan2_stage(gan, augmentation, style, own, data, train, sampling)
    first = replace(first, train=replace(train, steps=config.gan_steps))
    return [first, encoder_stage(first, None, config, data, train)]
