"""Diffusion along a discrete chain (DDPM and what followed): the model, its objectives, and its stage of training."""

from collections.abc import Callable
from typing import Any, NamedTuple

from jgen.config import Bound, ChainConfig, DataConfig, DiffusionSampling, LabelConfig, OptimizerConfig, TrainConfig, UNetConfig
from jgen.errors import UserError
from jgen.objectives import diffusion, vlb
from jgen.objectives.importance import new_history
from jgen.recipes.diffusion.evaluation import bound, loss_by_time, with_bound
from jgen.recipes.diffusion.model import DiffusionModel, Network, chain_model, noise_chain
from jgen.recipes.diffusion.networks import class_conditioning, num_labels, unet
from jgen.recipes.diffusion.sampling import LogProbOf
from jgen.recipes.diffusion.stage import Apply, apply_fn, diffusion_stage, init_fn, network_fn, rescaled
from jgen.train.stage import Evaluate, Stage
from jgen.types import Batch, Extra, Key, LossFn, Params


class ChainRecipe(NamedTuple):
    """A U-Net and its chain, resolved once."""

    apply: Apply
    network: Network
    model: DiffusionModel
    init: Callable[[Key, Batch], tuple[Params, Extra]]
    prediction: Any
    """The network's target."""


def chain_recipe(
    network: UNetConfig, chain: ChainConfig, labels: LabelConfig, data: DataConfig, train: TrainConfig, learn_variance: bool,
    extra: Extra | None = None,
) -> ChainRecipe:  # fmt: skip
    """A U-Net of images, with twice the channels where it learns its variance; extra: state that its objective keeps."""
    channels = (1 + learn_variance) * data.shape[-1]
    net = unet(network, train, channels, num_labels(data, labels), label_std=labels.label_std)
    apply = rescaled(apply_fn(net), chain)
    conditioning = class_conditioning(data, labels)
    classes = data.num_classes if labels.conditional else 0
    variance = "learned_range" if learn_variance else "large"
    more: dict[str, Any] = dict(conditioning=conditioning, classes=classes, variance=variance)
    model = chain_model(data.shape, network_fn(apply), noise_chain(chain), chain.prediction, **more)
    return ChainRecipe(apply, network_fn(apply), model, init_fn(net, data.shape, bool(classes), extra=extra), chain.prediction)


def simple_objective(recipe: ChainRecipe, min_snr: float, learn_variance: bool) -> Callable[[bool], LossFn]:
    """train -> the simple loss, weighed by min-SNR with min_snr, or the hybrid one where the variance is learned."""
    chain = recipe.model.chain
    how: dict[str, Any] = dict(conditioning=recipe.model.conditioning)
    assert chain is not None
    if learn_variance and min_snr:
        raise UserError(f"min_snr={min_snr}: weighs the simple loss alone, without learn_variance")
    if learn_variance:
        return lambda train: vlb.hybrid(recipe.apply, chain, recipe.prediction, train=train, **how)
    weights = diffusion.min_snr(chain, recipe.prediction, min_snr) if min_snr else None
    return lambda train: diffusion.simple(recipe.apply, chain, recipe.prediction, weights=weights, train=train, **how)


def ddpm_evaluation(recipe: ChainRecipe, options: Bound) -> Evaluate:
    """The loss by time, DDIM's round trip, and, on request, the bound."""
    model = recipe.model
    assert model.chain is not None
    found = loss_by_time(recipe.network, model.chain, recipe.prediction, model.conditioning)
    return with_bound(model, options, found)


def ddpm_stage(
    name: str, recipe: ChainRecipe, data: DataConfig, train: TrainConfig, optimizer: OptimizerConfig,
    sampling: DiffusionSampling, bound: Bound, *, min_snr: float = 0.0, learn_variance: bool = False,
    log_prob: LogProbOf | None = None,
) -> Stage:  # fmt: skip
    """DDPM's stage of training, with the simple loss or, where the variance is learned, the hybrid one."""
    return diffusion_stage(
        name, data, train, optimizer, sampling,
        model=recipe.model,
        init=recipe.init,
        objective=simple_objective(recipe, min_snr, learn_variance),
        evaluate=ddpm_evaluation(recipe, bound),
        log_prob=log_prob,
    )  # fmt: skip


def improved_stage(
    network: UNetConfig, chain: ChainConfig, labels: LabelConfig, data: DataConfig, train: TrainConfig,
    optimizer: OptimizerConfig, sampling: DiffusionSampling, options: Bound, learned: bool,
) -> Stage:  # fmt: skip
    """Improved DDPM's stage: the hybrid loss, or with `learned` the bound itself, times drawn by the size of their losses."""
    if options.bound_steps == -1:
        raise UserError("bound_steps=-1: this experiment's evaluation is the bound; must be at least 2, or 0 for all steps")
    history = {"importance": new_history(chain.diffusion_steps)} if learned else {}
    recipe = chain_recipe(network, chain, labels, data, train, learn_variance=True, extra=history)
    schedule = recipe.model.chain
    how: dict[str, Any] = dict(conditioning=recipe.model.conditioning)
    assert schedule is not None

    def objective(train: bool) -> LossFn:
        if learned:
            return vlb.vlb(recipe.apply, schedule, recipe.prediction, **how, train=train, importance=train)
        return vlb.hybrid(recipe.apply, schedule, recipe.prediction, **how, train=train)

    return diffusion_stage(
        "improved_ddpm", data, train, optimizer, sampling,
        model=recipe.model, init=recipe.init, objective=objective, evaluate=bound(recipe.model, options),
    )  # fmt: skip
