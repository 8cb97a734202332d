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
    from jgen.experiment import Experiment, Stage
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


class Model:
    """The autoencoder with its codebooks, the priors of its codes, and how one is made from the other."""

    def __init__(self, config: Config):
        from jgen.data import classes_of

        self.config, self.net, self.priors = config, network(config), priors(config)
        self.classes = classes_of(config.data, config.conditional)
        self.grids = self.net.grids(*config.data.shape[:2])

    def apply(self, params: Any, x: Any, vectors: Any) -> Any:
        """The autoencoder, as the objective calls it."""
        return self.net.apply({"params": params["autoencoder"]}, x, vectors)

    def init(self, key: Any) -> Any:
        """The autoencoder, its codebooks among the parameters or, where they follow their inputs, beside them."""
        import jax
        import jax.numpy as jnp

        from jgen.objectives import vqvae

        config = self.config
        keys = jax.random.split(key, 1 + config.levels)
        books = [vqvae.new_codebook(k, config.codes, config.code_size) for k in keys[1:]]
        vectors = [b.vectors for b in books]
        params = {"autoencoder": self.net.init(keys[0], jnp.zeros((1, *config.data.shape)), vectors)["params"]}
        if config.ema:
            return {"net": params}, {"codebooks": books}
        return {"net": {**params, "codebooks": vectors}}, {}

    def vectors(self, params: Any, extra: Any) -> Any:
        """Of every level's codebook [codes, code_size]."""
        return [b.vectors for b in extra["codebooks"]] if self.config.ema else params["net"]["codebooks"]

    def codes(self, params: Any, extra: Any, x: Any) -> Any:
        """The codes of images, level by level."""
        variables = {"params": params["net"]["autoencoder"]}
        return [q.codes for q in self.net.apply(variables, x, self.vectors(params, extra), method="encode")]

    def beneath(self, params: Any, extra: Any, codes: Any, level: int) -> dict[str, Any]:
        """What a level's prior knows beforehand: the coarser codes' vectors, each over the four places it covers."""
        import jax.numpy as jnp

        if level == 0:
            return {}
        return {"beneath": jnp.repeat(jnp.repeat(self.vectors(params, extra)[0][codes[0]], 2, 1), 2, 2)}

    def init_prior(self, key: Any) -> Any:
        """All of `init`, and fresh priors."""
        import jax
        import jax.numpy as jnp

        params, extra = self.init(key)
        label = jnp.zeros(1, jnp.int32) if self.config.conditional else None
        codes = [jnp.zeros((1, *g), jnp.int32) for g in self.grids]
        keys = jax.random.split(jax.random.fold_in(key, 1), self.config.levels)
        made = [
            n.init(k, c[..., None], label, **self.beneath(params, extra, codes, i))["params"]
            for i, (n, k, c) in enumerate(zip(self.priors, keys, codes))
        ]
        return {**params, "prior": made}, extra

    def begin(self, params: Any, extra: Any, fresh: Any, fresh_extra: Any) -> Any:
        """The autoencoder as it was trained, and fresh priors. Raises UserError for one of other sizes."""
        import jax
        import jax.numpy as jnp

        from jgen.errors import UserError

        old, new = (jax.tree.map(jnp.shape, tree) for tree in ((params["net"], extra), (fresh["net"], fresh_extra)))
        if old != new:
            raise UserError(
                f"prior: its grids {self.grids} of {self.config.codes} codes are not those of the autoencoder it begins from"
            )
        return {**fresh, "net": params["net"]}, extra

    def sample(self, params: Any, extra: Any, keys: Any, options: Sampling) -> Any:
        """Codes drawn from the priors, coarse to fine, and decoded."""
        import jax
        import jax.numpy as jnp

        from jgen import samplers
        from jgen.objectives.likelihood import categorical

        label = samplers.class_labels(keys, options.label, self.classes)
        chosen = categorical(self.config.codes, codes=True, temperature=options.temperature, top_k=options.top_k)
        codes = []
        for i, (n, p, grid) in enumerate(zip(self.priors, params["prior"], self.grids)):
            size, known = (len(keys), *grid, 1), self.beneath(params, extra, codes, i)
            decode = samplers.decoder(n, {"params": p}, size, label, **known)
            level_keys = jax.vmap(lambda k, i=i: jax.random.fold_in(k, i))(keys)
            drawn = samplers.autoregressive(decode, chosen.draw, level_keys, shape=size[1:])
            codes.append(drawn[..., 0].astype(jnp.int32))
        vectors = [v[c] for v, c in zip(self.vectors(params, extra), codes)]
        images = self.net.apply({"params": params["net"]["autoencoder"]}, vectors, method="decode")
        return jnp.clip(images, -1, 1)

    def reconstructions(self, params: Any, extra: Any, key: Any, batch: Any) -> Any:
        """Held-out images and, right of each, what its codes are decoded to."""
        import jax.numpy as jnp

        x = batch["image"][:32]
        out, _ = self.apply(params["net"], x, self.vectors(params, extra))
        return jnp.stack([x, jnp.clip(out, -1, 1)], 1).reshape(-1, *self.config.data.shape)

    def objective(self, train: bool) -> Any:
        """Of the autoencoder."""
        from jgen.objectives import vqvae

        config = self.config
        return vqvae.vqvae(self.apply, beta=config.beta, ema=config.ema, decay=config.decay, train=train)

    def prior_objective(self) -> Any:
        """Of the priors, all levels at once."""
        from jgen.objectives import vqvae
        from jgen.objectives.likelihood import categorical

        def call(net, params, codes, label, **known):
            return net.apply({"params": params}, codes, label, **known)

        nets, law = [functools.partial(call, n) for n in self.priors], categorical(self.config.codes, codes=True)
        return vqvae.prior(nets, self.codes, self.beneath, law, conditional=self.config.conditional)


def autoencoder_stage(model: Model) -> "Stage":
    import optax

    from jgen.experiment import Stage
    from jgen.train import Phase
    from jgen.train.rates import warmup_cosine

    config = model.config
    return Stage(
        name="autoencoder",
        data=config.data,
        train=config.train,
        init=model.init,
        phases=[Phase("net", model.objective(train=True))],
        optimizers={"net": optax.adam(warmup_cosine(config.learning_rate, config.train.steps, 100, 0.05))},
        pictures={"reconstructions": model.reconstructions},
        validate=model.objective(train=False),
        evaluate=measured(model.objective(train=False)),
    )


def prior_stage(model: Model) -> "Stage":
    import optax

    from jgen.experiment import Stage
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    config, loss = model.config, model.prior_objective()
    rate = warmup_cosine(config.prior_learning_rate, config.prior_steps, 100, 0.02)
    return Stage(
        name="prior",
        data=config.data,
        train=replace(config.train, steps=config.prior_steps),
        init=model.init_prior,
        phases=[Phase("prior", loss)],
        optimizers={"prior": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))},
        ema={"prior": ramped(0.998)},
        sample=model.sample,
        options=config.sampling,
        validate=loss,
        evaluate=measured(loss, model.objective(train=False)),
        begin=model.begin,
    )


def build(config: Config) -> "Experiment":
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment

    config = replace(config, data=resolve(config.data))
    if config.ema and config.train.accumulate > 1:
        raise UserError(f"train.accumulate={config.train.accumulate}: a codebook that follows its inputs needs the whole batch")
    model = Model(config)
    return Experiment([autoencoder_stage(model), prior_stage(model)])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
