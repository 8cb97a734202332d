"""PixelCNN, Gated PixelCNN and PixelCNN++ (arXiv:1601.06759, arXiv:1606.05328, arXiv:1701.05517).

    python -m experiments.pixelcnn                           # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.pixelcnn --preset fashion_mnist    # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.pixelcnn --preset cifar10          # PixelCNN++'s run, for accelerators
    python -m experiments.pixelcnn --conditional             # class-conditional

Target of the cifar10 preset: 2.92 bits/dim on the test set (PixelCNN++, table 1), after 5 days on 8 Titan X. Likelihoods
are of the 8-bit values themselves (discrete), exact, in bits per dimension.
"""

import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.objectives.likelihood import Likelihood


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    """Below 1, likelier pixels."""
    top_k: int = 0
    """Draw from the k likeliest levels only; 0 from all. For the softmax output."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1500, save_every=500, sample_every=500)
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    network: Literal["pixelcnn", "gated", "pixelcnnpp"] = "gated"
    output: Literal["softmax", "mixture"] = "softmax"
    """256-way softmax of each channel, or a mixture of discretised logistics."""
    mixtures: int = 10
    """Of the mixture."""
    channels: int = 32
    """Width of the network."""
    layers: int = 5
    """Blocks; of PixelCNN++, at each of its levels."""
    levels: int = 3
    """Of PixelCNN++."""
    hidden: int = 64
    """Width of the last layers but one."""
    dropout: float = 0.0
    """Of PixelCNN++."""
    conditional: bool = False
    """Give the network the class."""
    learning_rate: float = 3e-3
    """Of Adam, reached by a linear warm-up."""
    warmup: int = 100
    """Steps of it."""
    final_learning_rate: float = 0.02
    """Share of the learning rate that a cosine falls to by the last step."""
    ema: float = 0.995
    """Decay of the weights' moving average."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=32),
        train=TrainConfig(steps=3000, log_every=10, save_every=500, sample_every=1000),
        output="mixture",
        channels=32,
        layers=6,
        learning_rate=2e-3,
        ema=0.998,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=1_200_000, log_every=100, save_every=10_000, sample_every=50_000),
        network="pixelcnnpp",
        output="mixture",
        channels=160,
        layers=5,
        dropout=0.5,
        learning_rate=1e-3,
        warmup=0,
        final_learning_rate=0.0025,  # the authors' 0.999995 a step
        ema=0.9995,
    ),
}


def likelihood(config: Config, sampling: Sampling | None = None) -> "Likelihood":
    """What the network's outputs mean."""
    from jgen.objectives import likelihood

    sampling, channels = sampling or Sampling(), config.data.shape[-1]
    if config.output == "softmax":
        return likelihood.categorical(256, channels, temperature=sampling.temperature, top_k=sampling.top_k)
    return likelihood.logistic_mixture(config.mixtures, channels, temperature=sampling.temperature)


def network(config: Config) -> Any:
    """The chosen network, unconditional unless `config.conditional`."""
    from jgen.data import classes_of
    from jgen.models.pixelcnn import GatedPixelCNN, PixelCNN
    from jgen.models.pixelcnnpp import PixelCNNPP

    outputs, classes = likelihood(config).outputs, classes_of(config.data, config.conditional)
    if config.network == "pixelcnnpp":
        return PixelCNNPP(outputs, config.channels, config.layers, config.levels, config.dropout, classes)
    kind = {"pixelcnn": PixelCNN, "gated": GatedPixelCNN}[config.network]
    return kind(outputs, config.channels, config.layers, config.hidden, classes)


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp
    import numpy as np
    import optax

    from jgen import samplers
    from jgen.data import classes_of, open_source, resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.objectives.autoregressive import bits_on, nll
    from jgen.objectives.likelihood import to_level
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    config = replace(config, data=resolve(config.data))
    classes, shape = classes_of(config.data, config.conditional), config.data.shape
    net, law = network(config), likelihood(config)
    if config.data.dequantize:
        raise UserError("data.dequantize=True: the likelihood is of the 8-bit values themselves")

    def apply(params, x, label, **kwargs):
        return net.apply({"params": params}, x, label, **kwargs)

    def init(key):
        images = np.zeros((1, *shape), np.float32)
        if config.network == "pixelcnnpp":
            # Weight normalisation takes its scales from the first images. Where a finished run is only loaded, the set
            # may be elsewhere, and what is made here is replaced.
            with contextlib.suppress(UserError):
                source = open_source(config.data, config.train.seed)
                images = np.stack([source[i]["image"] for i in range(min(len(source), 32))]) / np.float32(127.5) - 1
        label = jnp.zeros(len(images), jnp.int32) if config.conditional else None
        return {"net": net.init(key, jnp.asarray(images), label)["params"]}, {}

    def sample(params, extra, keys, options: Sampling):
        if options.top_k and config.output == "mixture":
            raise UserError(f"top_k={options.top_k}: is for the softmax output")
        label = samplers.class_labels(keys, options.label, classes)
        chosen = likelihood(config, options)
        decode = samplers.decoder(net, {"params": params["net"]}, (len(keys), *shape), label)

        def draw(outputs, uniforms):
            return to_level(chosen.draw(outputs, uniforms))  # the network knows 8-bit levels only

        return samplers.autoregressive(decode, draw, keys, shape=shape, uniforms=chosen.uniforms)

    rate = warmup_cosine(config.learning_rate, config.train.steps, config.warmup, config.final_learning_rate)
    objective = dict(conditional=config.conditional)
    stage = Stage(
        name="pixelcnn",
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", nll(apply, law, **objective))],
        optimizers={"net": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))},
        ema={"net": ramped(config.ema)},
        sample=sample,
        options=config.sampling,
        validate=nll(apply, law, **objective, train=False),
        evaluate=bits_on(nll(apply, law, **objective, train=False), "discrete", bound=False),
    )
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
