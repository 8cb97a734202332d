"""Variational autoencoders and their relatives (Kingma & Welling 2013, arXiv:1312.6114).

    python -m experiments.vae                              # digits, 8x8: a minute on 2 CPU cores
    python -m experiments.vae --kind denoising             # also plain, sparse_kl, sparse_l1, iwae
    python -m experiments.vae --preset fashion_mnist       # 28x28, binarised: at most 30 minutes on 2 CPU cores
    python -m experiments.vae --preset cifar10             # convolutional, for accelerators

Target of the fashion_mnist preset: 229 nats on the test set, the importance-weighted bound with 5,000 draws of a gated MLP
with 40 latents on dynamically binarised Fashion-MNIST (Norouzi et al. 2020, arXiv:2004.04795, report 228.7 for one trained on
the evidence bound; the preset trains on the importance-weighted one, with 5 draws). The cifar10
preset has a discretised logistic likelihood; Kingma et al. 2016 report 4.54 bits/dim or less for such models. Likelihoods are
bounds: of the 8-bit values (logistic), of binary ones (bernoulli), or a density of values with uniform noise (gaussian with
--data.dequantize).
"""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.vae import VAE
    from jgen.objectives.likelihood import Likelihood


@dataclass(frozen=True)
class Sampling:
    noise: bool = False
    """Draw pixels from the likelihood rather than show its mean."""
    deviation: float = 1.0
    """Of the latent draws: below 1, nearer to the middle of the prior."""


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=3000, scan=10, log_every=10, save_every=1000, sample_every=1000)
    mesh: MeshConfig = MeshConfig(devices=1)
    """A network this small is slower on several CPU devices than on one that uses all cores."""
    sampling: Sampling = Sampling()
    kind: Literal["vae", "iwae", "plain", "denoising", "sparse_kl", "sparse_l1"] = "vae"
    """iwae: the importance-weighted bound; the last four are autoencoders without a prior."""
    likelihood: Literal["gaussian", "bernoulli", "logistic"] = "gaussian"
    """bernoulli binarises the images anew at every step."""
    c: float = 0.1
    """Of the Gaussian: |x - f(z)|^2 / 2c + KL, so small values ask for sharp reconstructions."""
    latents: int = 16
    widths: tuple[int, ...] = (256, 256)
    """Of the MLPs."""
    gated: bool = False
    """Gates in place of the MLPs' activations."""
    channels: tuple[int, ...] = ()
    """Convolutional instead, a level each."""
    beta: float = 1.0
    """Weight of the KL."""
    free_bits: float = 0.0
    """Nats of each latent that cost nothing."""
    kl_warmup: int = 0
    """Steps over which the KL's weight rises."""
    importance_samples: int = 5
    """Of iwae."""
    bound_samples: int = 50
    """Draws of the importance-weighted bound in `evaluate`; a multiple of 10."""
    noise: float = 0.5
    """Of denoising: deviation on the input."""
    sparsity: float = 0.1
    """Weight of the sparse kinds' penalty."""
    learning_rate: float = 1e-3
    final_learning_rate: float = 0.02
    """Share of the learning rate that a cosine falls to by the last step."""
    clip_norm: float = 0.0
    """Greatest norm of the gradient; 0 for any."""
    ema: float = 0.998
    """Decay of the weights' moving average."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=100),
        train=TrainConfig(steps=150_000, scan=10, log_every=100, save_every=10_000, sample_every=50_000),
        kind="iwae",
        likelihood="bernoulli",
        latents=40,
        widths=(300, 300),
        gated=True,
        bound_samples=5000,
        clip_norm=60.0,
        ema=0.999,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=128, flip=True),
        train=TrainConfig(steps=200_000, log_every=100, save_every=10_000, sample_every=10_000),
        likelihood="logistic",
        latents=256,
        channels=(64, 128, 256),
        free_bits=0.03,
        ema=0.9995,
        mesh=MeshConfig(),
    ),
}


def likelihood(config: Config) -> "Likelihood":
    """What the decoder's outputs mean."""
    from jgen.objectives import likelihood

    channels = config.data.shape[-1]
    if config.likelihood == "gaussian":
        return likelihood.gaussian(channels, config.c)
    return {"bernoulli": likelihood.bernoulli, "logistic": likelihood.logistic}[config.likelihood](channels)


def network(config: Config) -> "VAE":
    from jgen.models.vae import VAE

    height, width, channels = config.data.shape
    shape = (height, width, channels)
    return VAE(shape, likelihood(config).outputs, config.latents, config.widths, config.channels, gated=config.gated)


def code(config: Config, mean):
    """What the decoder is given: of the sparse kind with KL, activations between 0 and 1."""
    import jax

    return jax.nn.sigmoid(mean) if config.kind == "sparse_kl" else mean


def pictures(config: Config, encode, decode, law, prepare):
    """Reconstructions, traversals, interpolations, and with a prior the map of its first two latents."""
    import jax.numpy as jnp

    from jgen.edit import latents

    def show(params, z):
        return law.mean(decode(params["net"], z))

    def reconstructions(params, extra, key, batch):
        """Held-out images and, right of each, what the decoder makes of its code."""
        x = batch["image"][:32]
        x = prepare(key, x) if prepare else x
        return jnp.stack([x, show(params, code(config, encode(params["net"], x)[0]))], 1).reshape(-1, *config.data.shape)

    def traversals(params, extra, key, batch):
        """A latent a row, from -3 to 3, about the code of a held-out image; those that vary most over the batch."""
        means, _ = encode(params["net"], batch["image"])
        order = jnp.argsort(-jnp.var(means, 0))
        z = latents.traversal(means[0][order], min(8, config.latents), 8)
        return show(params, code(config, z[:, jnp.argsort(order)]))

    def interpolations(params, extra, key, batch):
        """From one held-out image's code to another's: rows by turns on a line and on an arc."""
        means, _ = encode(params["net"], batch["image"][:8])
        t = jnp.linspace(0, 1, 8)
        rows = [path(means[2 * i], means[2 * i + 1], t) for i in range(4) for path in (latents.lerp, latents.slerp)]
        return show(params, code(config, jnp.concatenate(rows)))

    def latent_map(params, extra, key, batch):
        """The first two latents over the prior."""
        return show(params, latents.gaussian_map(8, config.latents))

    found = {"reconstructions": reconstructions, "traversals": traversals, "interpolations": interpolations}
    with_map = config.kind in ("vae", "iwae") and config.latents >= 2
    return found | ({"map": latent_map} if with_map else {})


def evaluation(config: Config, encode, decode, law, prepare):
    """The bound and the importance-weighted one, in nats and bits/dim; without a prior, the error alone."""
    import jax
    import jax.numpy as jnp

    from jgen.metrics.bits import bits_per_dim
    from jgen.objectives import vae

    @jax.jit
    def measure(params, key, batch):
        keys = jax.random.split(key, 3)
        x = prepare(keys[0], batch["image"]) if prepare else batch["image"]

        def enc(x):
            return encode(params["net"], x)

        def dec(z):
            return decode(params["net"], z)

        if config.kind not in ("vae", "iwae"):
            return -jnp.mean(jnp.sum(law.log_prob(dec(code(config, enc(x)[0])), x), (1, 2)))
        terms = vae.elbo_terms(enc, dec, law, x, jax.random.normal(keys[1], (len(x), config.latents)))
        tight = vae.importance_log_likelihood(enc, dec, law, x, keys[2], config.bound_samples, 10)
        parts = (terms.reconstruction, jnp.sum(terms.kl, 1), -tight)
        return jnp.stack([jnp.mean(p) for p in parts])

    def evaluate(params, extra, key, batches, count):
        total = sum(measure(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count
        if total.ndim == 0:
            return {"reconstruction_nats": total}
        reconstruction, kl, tight = (float(v) for v in total)
        found = {"bound_nats": reconstruction + kl, "reconstruction_nats": reconstruction, "kl_nats": kl}
        found[f"iwae_{config.bound_samples}_nats"] = tight
        if config.likelihood == "bernoulli":
            return found | {"bits_per_dim_binarised_bound": (reconstruction + kl) / math.log(2) / math.prod(config.data.shape)}
        how = "discrete" if config.likelihood == "logistic" else "uniform" if config.data.dequantize else "none"
        bits = bits_per_dim(reconstruction + kl, config.data.shape, how, bound=True, scale=2)
        return found | {bits.name: bits.bits}

    return evaluate


def build(config: Config) -> "Experiment":
    import jax
    import jax.numpy as jnp
    import optax

    from jgen import samplers
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import vae
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    config = replace(config, data=resolve(config.data))
    net, law, shape = network(config), likelihood(config), config.data.shape
    prior = config.kind in ("vae", "iwae")
    if config.data.dequantize and config.likelihood != "gaussian":
        raise UserError(f"data.dequantize=True: {config.likelihood} is a likelihood of the 8-bit values themselves")
    prepare = vae.binarize if config.likelihood == "bernoulli" else None

    def encode(params, x):
        return net.apply({"params": params}, x, method="encode")

    def decode(params, z):
        return net.apply({"params": params}, z, method="decode")

    def init(key):
        params = net.init(key, jnp.zeros((1, *shape)))["params"]
        return {"net": params}, {"updates": jnp.zeros((), jnp.int32)} if config.kl_warmup else {}

    def objective(train):
        if config.kind in ("vae", "iwae"):
            options = (
                dict(beta=config.beta, free_bits=config.free_bits, warmup=config.kl_warmup * config.train.accumulate)
                if train
                else {}
            )
            options |= {"samples": config.importance_samples} if config.kind == "iwae" else {}
            return vae.vae(encode, decode, law, prepare=prepare, **options)
        sparsity = config.kind.removeprefix("sparse_") if config.kind.startswith("sparse") else "none"
        noise = config.noise if config.kind == "denoising" and train else 0.0
        return vae.autoencoder(encode, decode, law, noise=noise, sparsity=sparsity, weight=config.sparsity)

    def sample(params, extra, keys, options: Sampling):
        z = options.deviation * samplers.noise(keys, (config.latents,))
        outputs = decode(params["net"], z)
        if not options.noise:
            return law.mean(outputs)
        uniforms = jax.vmap(lambda k: jax.random.uniform(jax.random.fold_in(k, 1), (*shape[:2], law.uniforms)))(keys)
        return law.draw(outputs, uniforms)

    rate = warmup_cosine(config.learning_rate, config.train.steps, 200, config.final_learning_rate)
    clip = [optax.clip_by_global_norm(config.clip_norm)] if config.clip_norm else []
    stage = Stage(
        name="vae",
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", objective(train=True))],
        optimizers={"net": optax.chain(*clip, optax.adam(rate))},
        ema={"net": ramped(config.ema)},
        sample=sample if prior else None,
        options=config.sampling,
        pictures=pictures(config, encode, decode, law, prepare),
        validate=objective(train=False),
        evaluate=evaluation(config, encode, decode, law, prepare),
    )
    return Experiment([stage])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
