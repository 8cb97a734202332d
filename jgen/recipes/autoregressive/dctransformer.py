"""DCTransformer: front end, network, likelihood, sampler, pictures and training (Nash et al. 2021, arXiv:2103.03841)."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jgen import samplers
from jgen.config import DataConfig, OptimizerConfig, TrainConfig
from jgen.config.autoregressive import DCTransformerConfig, DCTSampling
from jgen.data import classes_of
from jgen.dct.chunks import chunks
from jgen.dct.images import codec
from jgen.dct.sequence import Tuples
from jgen.errors import UserError
from jgen.models.dctransformer import Choose, Context, DCTransformer, Logits, Slots
from jgen.nn.precision import in_dtype
from jgen.objectives.sparse import sparse_nll
from jgen.recipes.common import adam, mean_metrics, refuse_dequantized
from jgen.samplers.sparse import Known, SparseDecoder, sparse_autoregressive
from jgen.train import Phase
from jgen.train.rates import ramped
from jgen.train.stage import Evaluate, Picture, Stage
from jgen.types import Array, Batch, Extra, Key, LossFn, Metrics, Params, PyTree, Sample


class Model:
    """DCTransformer as functions of its weights. Raises UserError for images that blocks, patches or windows don't fit."""

    def __init__(self, config: DCTransformerConfig, data: DataConfig, dtype: str = "float32"):
        height, width, colours = data.shape
        self.codec = codec((height, width, colours), config.quality, config.block)
        self.layout = self.codec.layout
        if config.width % config.heads or self.layout.rows % config.patch or self.layout.columns % config.patch:
            raise UserError(
                f"patch={config.patch}, heads={config.heads}: must divide the {self.layout.rows}x{self.layout.columns} blocks "
                f"of an image and width={config.width}"
            )
        self.chunks, self.classes = self._chunks(config), classes_of(data, config.conditional)
        self.net = DCTransformer(
            self.layout, self.chunks, config.width, config.heads, config.encoder_layers, config.channel_layers,
            config.position_layers, config.value_layers, config.patch, self.classes, config.dropout,
        )  # fmt: skip
        self.trained = in_dtype(self.net, dtype)

    def _chunks(self, config: DCTransformerConfig) -> Any:
        length = config.length or self.layout.size
        size = min(config.chunk, length + 1)  # a window need not be longer than the longest sequence
        return chunks(self.layout, size, config.overlap if size == config.chunk else 0, config.length)

    def init(self, key: Key, batch: Batch) -> tuple[Params, Extra]:
        zeros = jnp.zeros((1, self.chunks.size + 1), jnp.int32)
        image, zero = jnp.zeros((1, self.layout.channels, self.layout.positions), jnp.int32), jnp.zeros(1, jnp.int32)
        return {"net": self.net.init(key, Tuples(zeros, zeros, zeros), image, zero, self._label(zero))["params"]}, {}

    def _label(self, label: Array | None) -> Array | None:
        return label if self.classes else None

    def loss(self, whole: bool = False) -> LossFn:
        net = self.net if whole else self.trained

        def apply(
            params: PyTree, window: Tuples, image: Array, chunk: Array, label: Array | None, /, key: Key | None = None
        ) -> Logits:
            train, rngs = key is not None, {} if key is None else {"dropout": key}
            found: Any = net.apply({"params": params}, window, image, chunk, label, train=train, rngs=rngs)
            return found

        return sparse_nll(apply, self.codec, self.chunks, conditional=bool(self.classes), whole=whole)

    def decoder(self, params: Params, batch: int, label: Array | None) -> SparseDecoder:
        variables = {"params": params["net"]}

        def encode(image: Array) -> Context:
            found: Any = self.net.apply(variables, image, label, method="encode")
            return found

        def step(
            context: Context, kept: Any, place: Array, before: Tuples, chunk: Array, choose: Choose, slots: Slots | None, /
        ) -> tuple[Tuples, Any]:
            given = (context, kept, place, before, chunk, choose, label, slots)
            found: Any = self.net.apply(variables, *given, method="step")
            return found

        return SparseDecoder(encode, step, self.net.apply(variables, batch, method="empty"))

    def draw(
        self, params: Params, keys: Key, options: DCTSampling, label: Array | None = None, known: Known | None = None
    ) -> Array:
        """Images [B, H, W, C] in [-1, 1], with the known coefficients where there are some."""
        planes = sparse_autoregressive(
            self.decoder(params, len(keys), label), self.layout, self.chunks, keys, known=known,
            temperature=options.temperature, top_k=options.top_k,
        )  # fmt: skip
        return self.codec.images(planes)

    def upsample(self, params: Params, keys: Key, images: Array, options: DCTSampling, label: Array | None = None) -> Array:
        """Images with the first `options.frequencies` of every block from the given ones, and all others drawn."""
        planes = self.codec.planes(images)
        channels = jnp.arange(self.layout.channels) < options.frequencies * self.codec.colours
        mask = jnp.broadcast_to(channels[None, :, None], planes.shape)
        return self.draw(params, keys, options, label, Known(planes, mask))

    def inpaint(
        self, params: Params, keys: Key, images: Array, blocks: Array, options: DCTSampling, label: Array | None = None
    ) -> Array:
        """Images with the known blocks, bool [rows, columns], from the given ones, and the others drawn.

        Coefficients come in the order of sequences, so that what is drawn follows the known blocks' lower frequencies.
        """
        planes = self.codec.planes(images)
        mask = jnp.broadcast_to(blocks.reshape(1, 1, -1), planes.shape)
        return self.draw(params, keys, options, label, Known(planes, mask))


def sampler(model: Model) -> Sample:
    """Images drawn tuple by tuple."""

    def sample(params: Params, extra: Extra, keys: Array, options: DCTSampling) -> Array:
        return model.draw(params, keys, options, samplers.class_labels(keys, options.label, model.classes))

    return sample


def frequencies_shown(count: int) -> list[int]:
    """Seven numbers of frequencies from 1 to all of them, each about as many times the one before.

    >>> frequencies_shown(64)
    [1, 2, 4, 8, 16, 32, 64]
    """
    return [round(count ** (i / 6)) for i in range(7)]


def pictures(model: Model, options: DCTSampling) -> Mapping[str, Picture]:
    """Held-out images by their number of coefficients, upsampled from low frequencies, and with another right half.

    Raises UserError where a block has no more frequencies than those that are known. Blocks of one are not upsampled.
    """
    every = model.codec.block**2
    if options.frequencies >= every > 1:
        raise UserError(f"frequencies={options.frequencies}: must be below the {every} of a block, or nothing is drawn")

    def coefficients(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """In each row a held-out image from 1 frequency a block up to all of them, and the image itself."""
        x = batch["image"][:8]
        planes, columns = model.codec.planes(x), []
        for number in frequencies_shown(model.codec.block**2):
            columns.append(model.codec.images(model.codec.truncated(planes, number)))
        return _rows([*columns, x])

    def upsampled(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """In each row a held-out image, its lowest frequencies, and six images drawn from those."""
        x, keys, label = _repeated(model, key, batch)
        drawn = model.upsample(params, keys, x, options, label)
        low = model.codec.images(model.codec.truncated(model.codec.planes(x[::6]), options.frequencies))
        return _rows([x[::6], low, *jnp.moveaxis(drawn.reshape(8, 6, *x.shape[1:]), 1, 0)])

    def inpainted(params: Params, extra: Extra, key: Key, batch: Batch) -> Array:
        """In each row a held-out image, its left blocks, and six images drawn from those."""
        x, keys, label = _repeated(model, key, batch)
        left = jnp.arange(model.layout.columns) < model.layout.columns // 2
        blocks = jnp.broadcast_to(left[None], (model.layout.rows, model.layout.columns))
        drawn = model.inpaint(params, keys, x, blocks, options, label)
        pixels = jnp.repeat(left, model.codec.block)[None, None, : model.codec.width, None]
        return _rows([x[::6], jnp.where(pixels, x[::6], 0), *jnp.moveaxis(drawn.reshape(8, 6, *x.shape[1:]), 1, 0)])

    found = {"coefficients": coefficients, "upsampled": upsampled, "inpainted": inpainted}
    return {name: picture for name, picture in found.items() if every > 1 or name != "upsampled"}


def _repeated(model: Model, key: Key, batch: Batch) -> tuple[Array, Array, Array | None]:
    """Eight held-out images six times each, keys for them, and their labels where the model takes some."""
    label = jnp.repeat(batch["label"][:8], 6) if model.classes else None
    return jnp.repeat(batch["image"][:8], 6, 0), jax.random.split(key, 48), label


def _rows(columns: list[Array]) -> Array:
    return jnp.stack(columns, 1).reshape(-1, *columns[0].shape[1:])


def evaluation(model: Model) -> Evaluate:
    """Bits of the quantised coefficients a number of the image (not comparable with those of lossless models), and the loss.

    PSNR in dB of the quantised images against the 8-bit ones, tuples an image, and the share of images that windows cut.
    """
    whole = model.loss(whole=True)

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        value, (extra, found) = whole(params, extra, key, batch)
        x = batch["image"]
        error = jnp.mean(jnp.square(model.codec.images(model.codec.planes(x)) - x), (1, 2, 3))
        return value, (extra, {**found, "quantized_psnr": jnp.mean(-10 * jnp.log10(jnp.maximum(error / 4, 1e-10)))})

    mean = mean_metrics(loss)

    def evaluate(params: Params, extra: Extra, key: Key, batches: Iterator[Batch], count: int) -> dict[str, Any]:
        found = dict(mean(params, extra, key, batches, count))
        if cut := float(found["cut"]):
            raise UserError(
                f"length={model.chunks.length}: {cut:.1%} of the images have more coefficients that are not 0, "
                "whose likelihood would be left out; raise it, or lower the quality"
            )
        return {f"bits_per_dim_of_dct_quality_{model.codec.quality}": found.pop("bits_per_dim"), **found}

    return evaluate


def stage(
    config: DCTransformerConfig, optimizer: OptimizerConfig, data: DataConfig, train: TrainConfig, sampling: DCTSampling
) -> Stage:
    """The training of DCTransformer. Raises UserError for dequantised data: the likelihood is of quantised coefficients."""
    refuse_dequantized(data, "the likelihood is of the quantised coefficients of 8-bit images")
    model = Model(config, data, train.dtype)
    return Stage(
        name="dctransformer",
        data=data,
        train=train,
        init=model.init,
        phases=[Phase("net", model.loss())],
        optimizers={"net": adam(optimizer, train.steps)},
        ema={"net": ramped(optimizer.ema)},
        sample=sampler(model),
        options=sampling,
        pictures=pictures(model, sampling),
        supports=frozenset(("dtype",)),
        validate=model.loss(whole=True),
        evaluate=evaluation(model),
    )
