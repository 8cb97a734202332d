"""PixelCNN, Gated PixelCNN and PixelCNN++: network, likelihood, sampler and training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.autoregressive import PixelCNNConfig, PixelSampling
from jgen.data import classes_of
from jgen.errors import UserError
from jgen.models.pixelcnn import GatedPixelCNN, PixelCNN
from jgen.models.pixelcnnpp import PixelCNNPP
from jgen.nn.precision import in_dtype
from jgen.objectives import likelihood as likelihoods
from jgen.objectives.autoregressive import bits_on, nll
from jgen.objectives.likelihood import Likelihood, to_level
from jgen.recipes.common import adam, refuse_dequantized
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Picture, Stage
from jgen.types import Array, Batch, Extra, Key, Params, PyTree

COMPLETED_ROWS, COMPLETIONS = 8, 6
"""Images of the picture `completed`, and completions of each."""


def likelihood(config: PixelCNNConfig, channels: int, temperature: float = 1.0, top_k: int = 0) -> Likelihood:
    """The distribution of pixels that the network's outputs stand for; temperature and top_k change how it is drawn from."""
    if config.output == "softmax":
        return likelihoods.categorical(256, channels, temperature=temperature, top_k=top_k)
    return likelihoods.logistic_mixture(config.mixtures, channels, temperature=temperature)


def network(config: PixelCNNConfig, data: DataConfig) -> PixelCNN | GatedPixelCNN | PixelCNNPP:
    """The network. Raises UserError for a conditional one of a set without labels."""
    outputs, classes = likelihood(config, data.shape[-1]).outputs, classes_of(data, config.conditional)
    if config.network == "pixelcnnpp":
        return PixelCNNPP(outputs, config.channels, config.layers, config.levels, config.dropout, classes)
    kind = {"pixelcnn": PixelCNN, "gated": GatedPixelCNN}[config.network]
    return kind(outputs, config.channels, config.layers, config.hidden, classes)


def completing(config: PixelCNNConfig, net: PixelCNN | GatedPixelCNN | PixelCNNPP, data: DataConfig) -> Callable[..., Array]:
    """(params, keys, options, given, known) -> images drawn pixel by pixel, but for the known pixels of `given`.

    given [B, H, W, C] and known bool [H, W] as of `jgen.samplers.autoregressive`. Raises UserError for top_k with a mixture.
    """
    height, width, channels = data.shape
    shape, classes = (height, width, channels), classes_of(data, config.conditional)

    def complete(
        params: Params, keys: Array, options: PixelSampling, given: Array | None = None, known: Array | None = None
    ) -> Array:
        if options.top_k and config.output == "mixture":
            raise UserError(f"top_k={options.top_k}: is for the softmax output")
        label = samplers.class_labels(keys, options.label, classes)
        law = likelihood(config, channels, options.temperature, options.top_k)
        decode = samplers.decoder(net, {"params": params["net"]}, (len(keys), *shape), label)

        def draw(outputs: Array, uniforms: Array) -> Array:
            return to_level(law.draw(outputs, uniforms))  # the network knows 8-bit levels only

        return samplers.autoregressive(decode, draw, keys, shape=shape, uniforms=law.uniforms, given=given, known=known)

    return complete


def completed(complete: Callable[..., Array], options: PixelSampling, data: DataConfig) -> Picture:
    """Held-out images, a row each: the image, its upper half, and six completions of that."""
    upper = jnp.arange(data.shape[0]) < data.shape[0] // 2
    known = jnp.broadcast_to(upper[:, None], data.shape[:2])

    def picture(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """Held-out images, a row each: the image, its upper half, and six completions of that."""
        images = batch["image"][:COMPLETED_ROWS]
        given = jnp.repeat(to_level(images), COMPLETIONS, 0)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(len(given)))
        found = complete(params, keys, options, given, known).reshape(-1, COMPLETIONS, *data.shape)
        half = jnp.where(known[None, :, :, None], images, 0.0)
        return jnp.concatenate([images[:, None], half[:, None], found], 1).reshape(-1, *data.shape)

    return picture


def stage(
    config: PixelCNNConfig, optimizer: OptimizerConfig, data: DataConfig, train: TrainConfig, sampling: PixelSampling
) -> Stage:
    """The training of a PixelCNN. Raises UserError for dequantised data: the likelihood is of 8-bit values."""
    refuse_dequantized(data, "the likelihood is of the 8-bit values themselves")
    net, law = network(config, data), likelihood(config, data.shape[-1])
    complete = completing(config, net, data)

    def init(key: Key, batch: Batch) -> tuple[Params, Extra]:
        # Weight normalisation takes its scales from the first images.
        images = batch["image"] if config.network == "pixelcnnpp" else jnp.zeros((1, *data.shape))
        label = jnp.zeros(len(images), jnp.int32) if config.conditional else None
        return {"net": net.init(key, images, label)["params"]}, {}

    trained = in_dtype(net, train.dtype)

    def apply(params: PyTree, x: Array, label: Array | None, *, rngs: dict[str, Key], train: bool) -> Array:
        return trained.apply({"params": params}, x, label, rngs=rngs, train=train)  # pyright: ignore[reportReturnType]

    held_out = nll(apply, law, conditional=config.conditional, train=False)
    return Stage(
        name="pixelcnn",
        data=data,
        train=train,
        init=init,
        phases=[Phase("net", nll(apply, law, conditional=config.conditional))],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        sample=lambda params, extra, keys, options: complete(params, keys, options),
        options=sampling,
        on_request={"completed": completed(complete, sampling, data)},
        supports=frozenset(("dtype",)),
        validate=held_out,
        evaluate=bits_on(held_out, "discrete", bound=False),
    )
