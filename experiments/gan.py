"""GANs: Goodfellow et al. 2014 (arXiv:1406.2661) and the losses, penalties and conditions that followed.

    python -m experiments.gan                                               # digits, 8x8: under 4 minutes on 2 CPU cores
    python -m experiments.gan --loss wasserstein --penalty gp --critic-steps 5 --train.steps 4000       # WGAN-GP
    python -m experiments.gan --loss wasserstein --penalty clip --critic-steps 5                        # WGAN
    python -m experiments.gan --conditioning projection
    python -m experiments.gan --augment diffaug --consistency 1             # for few images: --data.limit 200
    python -m experiments.gan --preset fashion_mnist                        # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.gan --preset cifar10                              # WGAN-GP's ResNet, for accelerators

Target of the cifar10 preset: Inception Score 7.86 (WGAN-GP, table 3; 100,000 generator steps of 5 critic steps each).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._style import Labelled
from jgen.config import DataConfig, MeshConfig, TrainConfig, check_at_least

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=2500, save_every=1250, sample_every=1250)
    mesh: MeshConfig = MeshConfig()
    sampling: Labelled = Labelled()
    network: Literal["dcgan", "resnet"] = "dcgan"
    width: int = 32
    """Of the largest features; each smaller level has twice as many."""
    z_dim: int = 64
    loss: Literal["minimax", "non_saturating", "least_squares", "hinge", "wasserstein", "relativistic"] = "non_saturating"
    penalty: Literal["none", "clip", "gp", "dragan", "r1", "r1_r2"] = "r1"
    """On D: its weights clipped, or a penalty of its gradient at mixed (gp), disturbed (dragan), real or all images."""
    penalty_weight: float = 0.0
    """Of the gradient penalties; of clip, the greatest weight. 0 takes the papers': 10 of gp and dragan, 0.01 of clip; and 1 as
    R1's gamma."""
    critic_steps: int = 1
    """Steps of D for each of G; train.steps counts those of D."""
    conditioning: Literal["none", "concat", "projection", "auxiliary"] = "none"
    """How D is told the class, or names it."""
    augment: Literal["none", "diffaug"] = "none"
    """What D sees: images moved, cut and recoloured, reals and fakes alike."""
    consistency: float = 0.0
    """Weight of balanced consistency (bCR, Zhao et al. 2020, arXiv:2002.04724; there 10): D is to judge an image, real or fake,
    as it judges the same moved and flipped."""
    learning_rate: float = 1e-3
    """Of Adam, for both players"""
    beta_1: float = 0.0
    beta_2: float = 0.99
    ema: float = 0.99
    """Decay of G's moving average, reached as (1 + step) / (10 + step) grows."""


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=3000, save_every=1500, sample_every=1500, log_every=10),
        width=16,
        learning_rate=5e-4,
        ema=0.998,
    ),
    "cifar10": Config(
        data=DataConfig("cifar10", batch_size=64, flip=True),
        train=TrainConfig(steps=500_000, save_every=10_000, sample_every=10_000, log_every=100),
        network="resnet",
        width=128,
        z_dim=128,
        loss="wasserstein",
        penalty="gp",
        penalty_weight=10.0,
        critic_steps=5,
        learning_rate=2e-4,
        beta_2=0.9,
        ema=0.999,
    ),
}


PENALTY_WEIGHTS = {"clip": 0.01, "gp": 10.0, "dragan": 10.0, "r1": 1.0, "r1_r2": 1.0}


def penalty(config: Config) -> Callable[..., Any]:
    """(logits, key, reals, fakes) -> the penalty of D's gradient, with its weight."""
    import jax

    from jgen.objectives import gan_penalties

    def value(logits, key, real, fake):
        mix_key, noise_key = jax.random.split(key)
        alphas = jax.random.uniform(mix_key, real.shape[:1])
        if config.penalty == "gp":
            return config.penalty_weight * gan_penalties.gradient_penalty(logits, real, fake, alphas)
        if config.penalty == "dragan":
            noise = jax.random.uniform(noise_key, real.shape)
            return config.penalty_weight * gan_penalties.dragan(logits, real, alphas, noise)
        if config.penalty in ("r1", "r1_r2"):
            of_real = gan_penalties.r1(logits, real, config.penalty_weight)
            return of_real + (gan_penalties.r2(logits, fake, config.penalty_weight) if config.penalty == "r1_r2" else 0.0)
        return 0.0

    return value


def consistency(config: Config) -> Callable[..., Any]:
    """(logits, key, reals, fakes) -> what D's logits change by as images are moved and flipped, with its weight."""
    import jax

    from jgen.objectives import diffaug, gan_penalties

    def value(logits, key, *images):
        if not config.consistency:
            return 0.0
        moved = (diffaug.consistency(k, x) for k, x in zip(jax.random.split(key), images))
        pairs = [y for x, z in zip(images, moved) for y in (logits(x), logits(z))]
        return gan_penalties.bcr(*pairs, config.consistency, config.consistency)

    return value


def optimizers(config: Config) -> dict[str, Any]:
    """Adam for both players; D's weights are clipped after each step where that is the penalty."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.objectives.gan_penalties import clip_weights

    def clipped(updates, state, params=None):
        new = clip_weights(optax.apply_updates(params, updates), config.penalty_weight)
        return jax.tree.map(jnp.subtract, new, params), state

    adam = optax.adam(config.learning_rate, config.beta_1, config.beta_2)
    clip = optax.GradientTransformation(lambda params: optax.EmptyState(), clipped)
    return {"d": optax.chain(adam, clip) if config.penalty == "clip" else adam, "g": adam}


class Game:
    """Both players: their networks, what each sees in a step, their losses, and samples."""

    def __init__(self, config: Config):
        from experiments._gan import square
        from jgen.data import classes_of
        from jgen.models.gan.dcgan import Discriminator, Generator
        from jgen.objectives import augmentation, gan

        self.config, self.classes = config, classes_of(config.data, config.conditioning != "none")
        self.g = Generator(square(config.data), config.data.shape[-1], config.width, config.network)
        self.d = Discriminator(config.width, config.network, config.conditioning)
        self.law = {"relativistic": gan.relativistic_paired}.get(config.loss) or getattr(gan, config.loss)
        self.augment = augmentation.named(config.augment).augment
        self.regularizers = penalty(config), consistency(config)

    def labels(self, label: Any) -> Any:
        import jax

        return jax.nn.one_hot(label, self.classes) if self.classes else None

    def init(self, key: Any) -> Any:
        import jax
        import jax.numpy as jnp

        keys, label = jax.random.split(key), self.labels(jnp.zeros(1, jnp.int32))
        made = self.g.init(keys[0], jnp.zeros((1, self.config.z_dim)), label)
        d = self.d.init(keys[1], jnp.zeros((1, *self.config.data.shape)), label)["params"]
        return {"g": made["params"], "d": d}, {"g": made["batch_stats"]}

    def generate(self, params: Any, extra: Any, z: Any, label: Any, train: bool) -> Any:
        """(images, G's statistics as they are after them)."""
        variables = {"params": params["g"], "batch_stats": extra["g"]}
        return self.g.apply(variables, z, label, train=train, mutable=["batch_stats"])

    def judge(self, params: Any, x: Any, label: Any) -> Any:
        return self.d.apply({"params": params["d"]}, x, label)

    def play(self, params: Any, extra: Any, key: Any, batch: Any) -> Any:
        """What both players see: (a key, reals, fakes, D's verdicts on both as augmented, labels, G's new statistics)."""
        import jax

        from jgen.arrays import spread

        z_key, real_key, fake_key, key = jax.random.split(key, 4)
        real, label = batch["image"], self.labels(batch["label"])
        z = spread(jax.random.normal(z_key, (len(real), self.config.z_dim)), real)
        fake, new = self.generate(params, extra, z, label, True)
        verdicts = (self.judge(params, self.augment(k, x, extra), label) for k, x in ((real_key, real), (fake_key, fake)))
        return key, real, fake, *verdicts, label, new["batch_stats"]

    def named(self, verdict: Any, label: Any) -> Any:
        """The auxiliary classifier's loss, of reals and of fakes alike (Odena et al. 2016, arXiv:1610.09585)."""
        import jax.numpy as jnp

        from jgen.objectives.gan_conditional import cross_entropy

        return 0.0 if verdict.classes is None else cross_entropy(verdict.classes, jnp.argmax(label, -1))

    def d_loss(self, params: Any, extra: Any, key: Any, batch: Any) -> Any:
        import jax
        import jax.numpy as jnp

        key, real, fake, true, false, label, _ = self.play(params, extra, key, batch)
        value = self.law.d(true.logits, false.logits) + self.named(true, label) + self.named(false, label)
        keys = key, jax.random.fold_in(key, 1)
        see = lambda x: self.judge(params, x, label).logits  # noqa: E731
        size = sum(regularizer(see, k, real, fake) for regularizer, k in zip(self.regularizers, keys))
        metrics = {"real_logits": jnp.mean(true.logits), "fake_logits": jnp.mean(false.logits), "penalty": size}
        return value + size, (extra, metrics)

    def g_loss(self, params: Any, extra: Any, key: Any, batch: Any) -> Any:
        _, _, _, true, false, label, stats = self.play(params, extra, key, batch)
        return self.law.g(false.logits, true.logits) + self.named(false, label), ({**extra, "g": stats}, {})

    def sample(self, params: Any, extra: Any, keys: Any, options: Labelled) -> Any:
        from jgen import samplers

        label = samplers.class_labels(keys, options.label, self.classes)
        z = samplers.noise(keys, (self.config.z_dim,))
        return self.generate(params, extra, z, None if label is None else self.labels(label), False)[0]


def build(config: Config) -> "Experiment":
    from experiments._gan import modes
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    check_at_least(1, critic_steps=config.critic_steps, z_dim=config.z_dim)
    if config.penalty != "none":
        config = replace(config, penalty_weight=config.penalty_weight or PENALTY_WEIGHTS[config.penalty])
    if config.loss == "wasserstein" and config.penalty == "none":
        raise UserError("penalty=none: a Wasserstein critic must be kept Lipschitz; take gp or clip")
    game = Game(config)
    return Experiment([
        Stage(
            name="gan",
            data=config.data,
            train=config.train,
            init=game.init,
            phases=[Phase("d", game.d_loss), Phase("g", game.g_loss, every=config.critic_steps)],
            optimizers=optimizers(config),
            ema={"g": ramped(config.ema)},
            sample=game.sample,
            options=config.sampling,
            evaluate=modes(config.data, game.sample, config.sampling),
        )
    ])  # fmt: skip


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
