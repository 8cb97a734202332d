"""A cascade of diffusion models (Ho et al. 2021, arXiv:2106.15282): a small image, then super-resolution, stage by stage."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import ChainConfig, DataConfig, LabelConfig, OptimizerConfig, TrainConfig
from jgen.config.cascade import CascadeConfig, CascadeNetwork, CascadeSampling, StageConfig, filled
from jgen.errors import UserError, in_stage
from jgen.objectives import diffusion, vlb
from jgen.recipes.common import adam, mean_loss
from jgen.recipes.diffusion.cascade_stages import (
    CascadeStage,
    check_overridden,
    check_sampling,
    resolve_stages,
    stage_network,
    stage_sampling,
)
from jgen.recipes.diffusion.editing import edit_levels, inpaint, picture_rows, redraw, removed, repeat_inputs, smaller_mask
from jgen.recipes.diffusion.guidance import Request, guiding_classifier, requested_labels
from jgen.recipes.diffusion.low_res import augmented, shrink, with_level
from jgen.recipes.diffusion.model import DiffusionModel, chain_model, noise_chain
from jgen.recipes.diffusion.networks import class_conditioning, num_labels
from jgen.recipes.diffusion.noisy_classifier import ClassLogProb, classifier_of_run, external_params
from jgen.recipes.diffusion.sampling import draw, guided_denoiser
from jgen.recipes.diffusion.stage import Apply, network_fn, rescaled
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Condition, Denoise, Extra, Key, LossFn, Metrics, Params, PyTree

Draw = Callable[[int, CascadeSampling, Key, Array | None], Array]
"""(stage, its options, keys, the smaller images with their noise level, None for the first stage) -> images."""


def check_sizes(sizes: Sequence[int], data: DataConfig) -> None:
    """Raises UserError unless each size divides the next, and the last is the set's."""
    height, width, _ = data.shape
    uneven = any(b % a or a >= b for a, b in itertools.pairwise(sizes))
    if not sizes or sizes[-1] != height or height != width or uneven:
        raise UserError(f"sizes={tuple(sizes)}: each must divide the next, and the last be the set's {height}x{width}")


class Cascade:
    """The networks of all stages, each a player of its own, and how they are trained, sampled and edited with."""

    def __init__(self, stages: Sequence[CascadeStage], labels: LabelConfig, data: DataConfig):
        self.stages, self.labels, self.data = stages, labels, data
        self.sizes = [stage.side for stage in stages]
        self.nets = [stage_network(stage, labels, i == 0) for i, stage in enumerate(stages)]
        self.conditioning = class_conditioning(data, labels)
        self.classes = data.num_classes if labels.conditional else 0
        self.models = [self._model(i) for i in range(len(stages))]

    def apply(self, i: int) -> Apply:
        """The network of stage i, whose condition holds the smaller image."""

        def apply(weights: PyTree, x: Array, t: Array, condition: Condition, **how: object) -> Array:
            low = {} if condition.low_res is None else {"low_res": condition.low_res}
            return self.nets[i].apply({"params": weights}, x, t, condition.label, **low, **how)

        return rescaled(apply, self.stages[i].chain)

    def _model(self, i: int) -> DiffusionModel:
        stage = self.stages[i]
        shape = (stage.side, stage.side, self.data.shape[-1])
        return chain_model(
            shape, network_fn(self.apply(i), stage.player), noise_chain(stage.chain), stage.chain.prediction,
            conditioning=self.conditioning, classes=self.classes,
            variance="learned_range" if stage.learn_variance else "small",
        )  # fmt: skip

    def init(self, i: int, key: Key) -> tuple[Params, Extra]:
        """The weights of the stages up to i."""
        channels, made = self.data.shape[-1], {}
        label = jnp.zeros((1,), jnp.int32) if num_labels(self.data, self.labels) else None
        for j, stage in enumerate(self.stages[: i + 1]):
            x, t = jnp.zeros((1, stage.side, stage.side, channels)), jnp.zeros((1,))
            low = {"low_res": jnp.zeros((1, *(self.sizes[j - 1],) * 2, channels + 1))} if j else {}
            with in_stage(stage.player):
                made[stage.player] = self.nets[j].init(jax.random.fold_in(key, j), x, t, label, **low)["params"]
        return made, {}

    def objective(self, i: int, train: bool) -> LossFn:
        """The simple loss of stage i, or the hybrid one."""
        stage, own = self.stages[i], self.conditioning
        conditioning = own._replace(of_batch=lambda batch: own.of_batch(batch).replace(low_res=batch.get("low_res")))
        kind = vlb.hybrid if stage.learn_variance else diffusion.simple
        how: dict[str, Any] = dict(conditioning=conditioning, player=stage.player, train=train)
        loss_fn = kind(self.apply(i), noise_chain(stage.chain), stage.chain.prediction, **how)

        def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
            seen = {**batch, "image": shrink(batch["image"], stage.side)}
            if i:
                small, config = shrink(batch["image"], self.sizes[i - 1]), stage.config
                seen["low_res"] = augmented(jax.random.fold_in(key, 7), small, config.most_augment, config.blur)
            return loss_fn(params, extra, key, seen)

        return loss

    def sample_stages(self, last: int, keys: Key, options: CascadeSampling, draw_stage: Draw) -> Array:
        """Images of stage `last`, each stage's drawn from those of the one before.

        Raises UserError for noise that the stages were not trained with, and for options that their samplers do not take.
        """
        most = max(stage.config.most_augment for stage in self.stages[1:] or self.stages)
        if not options.augment <= most:
            raise UserError(f"augment={options.augment}: must be from 0 to the {most} it was trained with")
        check_sampling(options, self.stages)
        low = images = None
        for i, stage in enumerate(self.stages[: last + 1]):
            stage_keys, noise_keys = (jax.vmap(lambda k, n=n: jax.random.fold_in(k, n))(keys) for n in (1000 + i, 2000 + i))
            if images is not None:
                level = min(options.augment, stage.config.most_augment)
                noised = images + level * samplers.noise(noise_keys, images.shape[1:])
                low = with_level(noised, jnp.full(len(keys), level))
            images = jnp.clip(draw_stage(i, stage_sampling(options, i, stage), stage_keys, low), -1, 1)
        assert images is not None
        return images

    def request(self, label: Array | None, low: Array | None) -> Request:
        """A request of a stage: the class, where the networks know classes, and the smaller image."""
        return Request(Condition(label=label if self.classes else None, low_res=low), label)

    def log_prob(self, i: int, options: CascadeSampling, extra: Extra, label: Array | None) -> ClassLogProb | None:
        """The classifier of stage i, where one guides and knows images of its size, or of none of the stages."""
        shapes = [model.shape for model in self.models]
        guide = options.guide
        if guide.classifier and shapes[i] != (known := classifier_of_run(guide.classifier)[0].shape) and known in shapes:
            return None
        return guiding_classifier(guide, extra, label, shapes[i])

    def from_noise(self, params: Params, extra: Extra, label: Array | None) -> Draw:
        """Draws images of any stage from noise."""

        def draw_stage(i: int, options: CascadeSampling, keys: Key, low: Array | None) -> Array:
            log_prob = self.log_prob(i, options, extra, label)
            return draw(self.models[i], params, keys, self.request(label, low), options, log_prob)

        return draw_stage

    def labels_of(self, keys: Key, options: CascadeSampling) -> Array | None:
        """The class of every image, where there are classes to ask for."""
        return requested_labels(keys, options, self.classes, self.data.num_classes)

    def sample(self, last: int, params: Params, extra: Extra, keys: Key, options: CascadeSampling) -> Array:
        """Images of stage `last`. Raises UserError as `sample_stages` does."""
        return self.sample_stages(last, keys, options, self.from_noise(params, extra, self.labels_of(keys, options)))

    def denoiser(
        self, i: int, options: CascadeSampling, params: Params, extra: Extra, low: Array | None, label: Array | None
    ) -> Denoise:
        """The guided denoiser of stage i."""
        log_prob = self.log_prob(i, options, extra, label)
        return guided_denoiser(self.models[i], params, self.request(label, low), options, log_prob)


def cascade_edits(cascade: Cascade, last: int, options: CascadeSampling) -> dict[str, Picture]:
    """Held-out images, of the size of stage `last`, edited.

    The known pixels of an image are put in at every stage, as far as there are pixels there. SDEdit is of the first stage, from
    the image as small as that one's; the others draw from noise what belongs to the result.
    """
    sizes = cascade.sizes

    def labels_of(batch: Batch, keys: Key) -> Array | None:
        label = cascade.labels_of(keys, options)
        own = label is not None and options.label < 0 and cascade.data.num_classes and "label" in batch
        return batch["label"] if own else label

    def inpainted(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        many, keys = repeat_inputs(options.solver, key, batch)
        images, label = many["image"], labels_of(many, keys)
        out = removed(options, batch)

        def draw_stage(i: int, options: CascadeSampling, keys: Key, low: Array | None) -> Array:
            known, hidden = shrink(images, sizes[i]), jnp.asarray(smaller_mask(out, sizes[i], sizes[i]))
            denoise = cascade.denoiser(i, options, params, extra, low, label)
            return inpaint(options.solver, denoise, keys, known, hidden, edit_levels(cascade.models[i], options.solver))

        found, hidden = cascade.sample_stages(last, keys, options, draw_stage), smaller_mask(out, sizes[last], sizes[last])
        images = shrink(images, sizes[last])
        return picture_rows(images, jnp.where(hidden, 0.0, images), found)

    def edited(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        many, keys = repeat_inputs(options.solver, key, batch)
        images, label, given = many["image"], labels_of(many, keys), []
        from_noise = cascade.from_noise(params, extra, label)

        def draw_stage(i: int, options: CascadeSampling, keys: Key, low: Array | None) -> Array:
            if i > 0:
                return from_noise(i, options, keys, low)
            denoise, small = cascade.denoiser(i, options, params, extra, low, label), shrink(images, sizes[0])
            grid, level = edit_levels(cascade.models[0], options.solver), options.edit.edit_from
            found, noised, level = redraw(options.solver, denoise, keys, small, grid, level)
            given.append(noised / (1 + level))
            return found

        found = cascade.sample_stages(last, keys, options, draw_stage)
        times = sizes[last] // sizes[0]
        shown = jnp.repeat(jnp.repeat(given[0], times, 1), times, 2)
        return picture_rows(shrink(images, sizes[last]), shown, found)

    return {"inpainted": inpainted, "edited": edited}


def cascade_stage(cascade: Cascade, i: int, optimizer: OptimizerConfig, options: CascadeSampling) -> Stage:
    """The training of stage i, beside those before it."""
    own = cascade.stages[i]

    def sample(params: Params, extra: Extra, keys: Key, chosen: CascadeSampling) -> Array:
        check_overridden(chosen, options)
        return cascade.sample(i, params, extra, keys, chosen)

    validate = cascade.objective(i, train=False)
    return Stage(
        name=own.player,
        data=own.data,
        train=own.train,
        init=lambda key, batch: cascade.init(i, key),
        phases=[Phase(own.player, cascade.objective(i, train=True))],
        optimizers={own.player: adam(optimizer, own.train.steps)},
        ema={own.player: ramped(optimizer.ema)},
        supports=frozenset(("dtype", "remat")),
        sample=sample,
        on_request=cascade_edits(cascade, i, options),
        options=options,
        external_params=external_params,
        validate=validate,
        evaluate=mean_loss(validate),
        begin=lambda params, extra, fresh, fresh_extra: ({**fresh, **params}, fresh_extra),
    )


def cascade_stages(
    config: CascadeConfig, own: Sequence[StageConfig], network: CascadeNetwork, chain: ChainConfig, labels: LabelConfig,
    data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig, options: CascadeSampling,
) -> list[Stage]:  # fmt: skip
    """A stage for every size; own: the settings that a stage has otherwise than the whole."""
    check_sizes(config.sizes, data)
    resolved = resolve_stages(config, network, chain, data, train, filled(own, len(config.sizes)))
    cascade = Cascade(resolved, labels, data)
    return [cascade_stage(cascade, i, optimizer, options) for i in range(len(config.sizes))]
