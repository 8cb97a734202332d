"""VQ-VAE and VQ-VAE-2, and the PixelCNN prior over their codes (arXiv:1711.00937, arXiv:1906.00446).

    python -m experiments.vqvae                              # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.vqvae --conditional                # a class-conditional prior
    python -m experiments.vqvae --preset fashion_mnist       # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.vqvae --preset cifar10             # two levels, for accelerators

Two stages, one command: the autoencoder, then gated PixelCNNs over the codes it makes, coarse to fine; samples are codes
of the priors, decoded. Target of the cifar10 preset: a mean squared error that gives the 4.67 bits/dim of van den Oord et
al. 2017 (their figure for the whole model); VQ-VAE-2 does not report CIFAR-10.
"""

import functools
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jgen
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.vqvae import VQVAE


@dataclass(frozen=True)
class Sampling:
    temperature: float = 1.0
    """Of the codes: below 1, likelier ones."""
    top_k: int = 0
    """Draw from the k likeliest codes only; 0 from all."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional prior."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500)
    """Of the autoencoder."""
    prior_steps: int = 1500
    """Of the prior."""
    mesh: MeshConfig = MeshConfig()
    sampling: Sampling = Sampling()
    levels: int = 1
    """2: VQ-VAE-2's coarse and fine grids."""
    stride: int = 2
    """Pixels of an image to a code of the finest grid."""
    channels: int = 64
    """Width of the autoencoder."""
    blocks: int = 1
    """Residual blocks in each of its parts."""
    block_channels: int = 32
    code_size: int = 16
    """Numbers of a code's vector."""
    codes: int = 64
    """In each codebook."""
    ema: bool = True
    """Codebooks follow their inputs; else a gradient trains them."""
    beta: float = 0.25
    """Weight of the commitment."""
    decay: float = 0.99
    """Of the codebooks' moving averages."""
    learning_rate: float = 2e-3
    prior_channels: int = 48
    """Width of the prior."""
    prior_layers: int = 5
    prior_learning_rate: float = 2e-3
    conditional: bool = False
    """Give the prior the class."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=3000, log_every=10, save_every=1000, sample_every=1000),
        prior_steps=6000,
        stride=4,
        codes=256,
        learning_rate=1e-3,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=250_000, log_every=100, save_every=10_000, sample_every=10_000),
        prior_steps=250_000,
        levels=2,
        stride=2,
        channels=256,
        blocks=2,
        code_size=64,
        codes=512,
        learning_rate=2e-4,
        prior_channels=256,
        prior_layers=14,
        prior_learning_rate=3e-4,
    ),
}


def network(config: Config) -> "VQVAE":
    from jgen.models.vqvae import VQVAE

    return VQVAE(
        config.data.shape[-1], config.channels, config.blocks, config.block_channels, config.code_size, config.levels,
        config.stride,
    )  # fmt: skip


def priors(config: Config) -> list[Any]:
    """A gated PixelCNN for each level, coarse to fine."""
    from jgen.data import classes_of
    from jgen.models.pixelcnn import GatedPixelCNN

    classes, width = classes_of(config.data, config.conditional), config.prior_channels
    return [
        GatedPixelCNN(config.codes, width, config.prior_layers, 2 * width, classes, config.codes) for _ in range(config.levels)
    ]


def measured(*losses):
    """All that these losses report, on held-out images."""
    import jax

    @jax.jit
    def run(params, extra, key, batch):
        found = {}
        for loss in losses:
            found |= loss(params, extra, key, batch)[1][1]
        return found

    def evaluate(params, extra, key, batches, count):
        found = [run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)]
        return {name: sum(f[name] for f in found) / count for name in found[0]}

    return evaluate


def apply_prior(net, params, codes, label, **known):
    """A prior's outputs, as the objective calls it."""
    return net.apply({"params": params}, codes, label, **known)


def build(config: Config) -> "Experiment":
    import jax
    import jax.numpy as jnp
    import optax

    from jgen import samplers
    from jgen.data import classes_of, resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import vqvae
    from jgen.objectives.likelihood import categorical
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    config = replace(config, data=resolve(config.data))
    classes, shape, net = classes_of(config.data, config.conditional), config.data.shape, network(config)
    if config.ema and config.train.accumulate > 1:
        raise UserError(f"train.accumulate={config.train.accumulate}: a codebook that follows its inputs needs the whole batch")
    height, width, _ = shape
    grids = net.grids(height, width)

    def apply(params, x, vectors):
        return net.apply({"params": params["autoencoder"]}, x, vectors)

    def init(key):
        keys = jax.random.split(key, 1 + config.levels)
        books = [vqvae.new_codebook(k, config.codes, config.code_size) for k in keys[1:]]
        vectors = [b.vectors for b in books]
        params = {"autoencoder": net.init(keys[0], jnp.zeros((1, *shape)), vectors)["params"]}
        if config.ema:
            return {"net": params}, {"codebooks": books}
        return {"net": {**params, "codebooks": vectors}}, {}

    def vectors_of(params, extra):
        return [b.vectors for b in extra["codebooks"]] if config.ema else params["net"]["codebooks"]

    def reconstructions(params, extra, key, batch):
        """Held-out images and, right of each, what its codes are decoded to."""
        x = batch["image"][:32]
        out, _ = apply(params["net"], x, vectors_of(params, extra))
        return jnp.stack([x, jnp.clip(out, -1, 1)], 1).reshape(-1, *shape)

    def objective(train):
        return vqvae.vqvae(apply, beta=config.beta, ema=config.ema, decay=config.decay, train=train)

    first = Stage(
        name="autoencoder",
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", objective(train=True))],
        optimizers={"net": optax.adam(warmup_cosine(config.learning_rate, config.train.steps, 100, 0.05))},
        pictures={"reconstructions": reconstructions},
        validate=objective(train=False),
        evaluate=measured(objective(train=False)),
    )

    nets, law = priors(config), categorical(config.codes, codes=True)

    def beneath_of(params, extra, codes, level):
        """What a level's prior knows beforehand: the coarser codes' vectors, each over the four places it covers."""
        if level == 0:
            return {}
        return {"beneath": jnp.repeat(jnp.repeat(vectors_of(params, extra)[0][codes[0]], 2, 1), 2, 2)}

    def begin(params, extra, fresh, fresh_extra):
        """The autoencoder as it was trained, and fresh priors. Raises UserError for one of other sizes."""
        old, new = (jax.tree.map(jnp.shape, tree) for tree in ((params["net"], extra), (fresh["net"], fresh_extra)))
        if old != new:
            raise UserError(f"prior: its grids {grids} of {config.codes} codes are not those of the autoencoder it begins from")
        return {**fresh, "net": params["net"]}, extra

    def codes_of(params, extra, x):
        found = net.apply({"params": params["net"]["autoencoder"]}, x, vectors_of(params, extra), method="encode")
        return [q.codes for q in found]

    def init_prior(key):
        params, extra = init(key)
        label = jnp.zeros(1, jnp.int32) if config.conditional else None
        codes = [jnp.zeros((1, *g), jnp.int32) for g in grids]
        keys = jax.random.split(jax.random.fold_in(key, 1), config.levels)
        made = [
            n.init(k, c[..., None], label, **beneath_of(params, extra, codes, i))["params"]
            for i, (n, k, c) in enumerate(zip(nets, keys, codes))
        ]
        return {**params, "prior": made}, extra

    prior_loss = vqvae.prior(
        [functools.partial(apply_prior, n) for n in nets], codes_of, beneath_of, law, conditional=config.conditional
    )

    def sample(params, extra, keys, options: Sampling):
        label = samplers.class_labels(keys, options.label, classes)
        chosen = categorical(config.codes, codes=True, temperature=options.temperature, top_k=options.top_k)
        codes = []
        for i, (n, p, grid) in enumerate(zip(nets, params["prior"], grids)):
            size, known = (len(keys), *grid, 1), beneath_of(params, extra, codes, i)
            decode = samplers.decoder(n, {"params": p}, size, label, **known)
            level_keys = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
            drawn = samplers.autoregressive(decode, chosen.draw, level_keys, shape=size[1:])
            codes.append(drawn[..., 0].astype(jnp.int32))
        vectors = [v[c] for v, c in zip(vectors_of(params, extra), codes)]
        images = net.apply({"params": params["net"]["autoencoder"]}, vectors, method="decode")
        return jnp.clip(images, -1, 1)

    rate = warmup_cosine(config.prior_learning_rate, config.prior_steps, 100, 0.02)
    second = Stage(
        name="prior",
        data=config.data,
        train=replace(config.train, steps=config.prior_steps),
        init=init_prior,
        phases=[Phase("prior", prior_loss)],
        optimizers={"prior": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))},
        ema={"prior": ramped(0.998)},
        sample=sample,
        options=config.sampling,
        validate=prior_loss,
        evaluate=measured(prior_loss, objective(train=False)),
        begin=begin,
    )
    return Experiment([first, second])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
