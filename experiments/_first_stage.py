"""The first stage of latent diffusion: an autoencoder with a KL or codes, and its stage of training.

Its knobs are those of experiments/latent_diffusion.py. Perceptual and patch-adversarial terms are optional.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from experiments.latent_diffusion import Config
    from jgen.models.autoencoder import AutoencoderKL, VQModel


def first_stage(config: "Config") -> "AutoencoderKL | VQModel":
    from jgen.models.autoencoder import AutoencoderKL, VQModel
    from jgen.nn.norm import groups_of

    channels, levels = config.data.shape[-1], len(config.first_mult)
    shape: Any = dict(
        image_channels=channels,
        z_channels=config.latent_channels,
        embed=config.latent_channels,
        channels=config.first_channels,
        channel_mult=config.first_mult,
        num_res_blocks=config.first_blocks,
        groups=groups_of(config.first_channels),
        attention=(levels - 1,) if config.first_attention and config.first == "kl" else (),
    )
    return VQModel(**shape, codes=config.codes) if config.first == "vq" else AutoencoderKL(**shape)


def perceptual_distance(config: "Config") -> tuple[Any, Any]:
    """The perceptual term, ((weights, images, images) -> [B], its weights): LPIPS where its files are given, else by the
    features of the classifier that jgen ships for the set; (None, {}) where it counts nothing.
    """
    import jax.numpy as jnp

    from jgen.errors import UserError
    from jgen.metrics.extract import open_extractor
    from jgen.metrics.lpips import open_lpips

    files = config.perceptual_trunk, config.perceptual_heads
    if not config.perceptual:
        if any(files):
            raise UserError("perceptual=0.0: must be above 0 where perceptual_trunk and perceptual_heads are given")
        return None, {}
    if any(files):
        return open_lpips(*files)
    judge = open_extractor("", config.data.name)

    def distance(weights, a, b):
        of_a, of_b = (judge.apply(weights, (v + 1) * 127.5)[0] for v in (a, b))
        return jnp.mean(jnp.square(of_a - of_b), -1)

    return distance, judge.variables


def reconstructor(config: "Config", net: Any) -> Any:
    """(params, images, key) -> (their reconstructions, the penalty of the bottleneck)."""
    import math

    import jax
    import jax.numpy as jnp

    from jgen.models.vqvae import straight_through
    from jgen.objectives import first_stage

    count = math.prod(config.data.shape)

    def by_codes(params, x, key):
        variables = {"params": params}
        q = net.apply(variables, net.apply(variables, x, method="encode"), method="quantize")
        out = net.apply(variables, straight_through(q), method="decode")
        return out, first_stage.codebook_loss(q, legacy=False)

    def by_gaussians(params, x, key):
        variables = {"params": params}
        mean, log_variance = net.apply(variables, x, method="encode")
        z = first_stage.latents(mean, log_variance, jax.random.normal(key, mean.shape))
        penalty = config.kl_weight * jnp.mean(first_stage.kl(mean, log_variance)) / count
        return net.apply(variables, z, method="decode"), penalty

    return by_codes if config.first == "vq" else by_gaussians


class Losses:
    """Of the first stage: those of the autoencoder and of the patch discriminator (the critic), and what they need besides."""

    def __init__(self, config: "Config", net: Any):
        from jgen.models.patchgan import PatchGAN

        side = config.data.shape[0]
        self.config = config
        self.critic = PatchGAN(32 if config.first_channels < 64 else 64, 1 if side < 16 else 2 if side < 64 else 3)
        # Updates are counted once for every part of a step.
        self.since = config.adversarial_from * config.train.accumulate
        self.reconstruct = reconstructor(config, net)
        self.distance, self.judge = perceptual_distance(config)

    def init(self, key: Any) -> Any:
        """What the losses need besides the autoencoder: (params, extra)."""
        import jax
        import jax.numpy as jnp

        params, extra = {}, {}
        if self.distance is not None:
            params["judge"] = jax.tree.map(jnp.asarray, self.judge)
        if self.config.adversarial:
            made = self.critic.init(key, jnp.zeros((1, *self.config.data.shape)), train=False)
            params["critic"] = made["params"]
            extra = {"critic": made["batch_stats"], "updates": jnp.zeros((), jnp.int32)}
        return params, extra

    def discriminate(self, params: Any, extra: Any, x: Any) -> Any:
        """(logits of patches, the critic's statistics as they are after them)."""
        variables = {"params": params["critic"], "batch_stats": extra["critic"]}
        return self.critic.apply(variables, x, train=True, mutable=["batch_stats"])

    def fooled(self, params: Any, extra: Any, out: Any) -> Any:
        """The critic's part of the autoencoder's loss."""
        from jgen.objectives import first_stage

        return first_stage.generator_loss(self.discriminate(params, extra, out)[0])

    def nll(self, params: Any, x: Any, out: Any) -> Any:
        """By pixels, and by the perceptual distance where it counts."""
        import jax.numpy as jnp

        from jgen.objectives import first_stage

        apart = None if self.distance is None else self.distance(params["judge"], x, out)[:, None, None, None]
        squared = self.config.pixel_loss == "l2"
        return jnp.mean(first_stage.reconstruction(x, out, apart, self.config.perceptual, squared))

    def weight(self, params: Any, extra: Any, key: Any, x: Any) -> Any:
        """Of the critic's part: it follows the gradients at the decoder's last layer."""
        from jgen.objectives import first_stage

        net = params["net"]
        last = net["decoder"]["conv_out"]

        def with_last(kernel):
            own = {**net, "decoder": {**net["decoder"], "conv_out": {**last, "kernel": kernel}}}
            return self.reconstruct(own, x, key)[0]

        return first_stage.adaptive_weight(
            lambda k: self.nll(params, x, with_last(k)),
            lambda k: self.fooled(params, extra, with_last(k)),
            last["kernel"],
            self.config.adversarial,
        )

    def generator(self, train: bool) -> Any:
        """The autoencoder's loss; in training it counts the updates."""
        from jgen.objectives import first_stage

        def loss(params, extra, key, batch):
            x = batch["image"]
            out, penalty = self.reconstruct(params["net"], x, key)
            error = self.nll(params, x, out)
            metrics = {"reconstruction": error, "penalty": penalty}
            if not self.config.adversarial:
                return error + penalty, (extra, metrics)
            weight, value = self.weight(params, extra, key, x), self.fooled(params, extra, out)
            begun = first_stage.begun(extra["updates"], self.since)
            extra = {**extra, "updates": extra["updates"] + 1} if train else extra
            return error + penalty + begun * weight * value, (extra, {**metrics, "fooled": value, "weight": weight})

        return loss

    def adversary(self, params: Any, extra: Any, key: Any, batch: Any) -> Any:
        """The critic's loss."""
        import jax

        from jgen.objectives import first_stage

        out = jax.lax.stop_gradient(self.reconstruct(params["net"], batch["image"], key)[0])
        real, _ = self.discriminate(params, extra, batch["image"])
        fake, after = self.discriminate(params, extra, out)
        begun = first_stage.begun(extra["updates"], self.since)
        return begun * first_stage.discriminator_loss(real, fake), ({**extra, "critic": after["batch_stats"]}, {})


def autoencoder_stage(config: "Config", net: Any) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.experiment import Stage
    from jgen.metrics.image_quality import psnr
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    shape, losses = config.data.shape, Losses(config, net)

    def init(key):
        keys = jax.random.split(key)
        params, extra = losses.init(keys[1])
        return {**params, "net": net.init(keys[0], jnp.zeros((1, *shape)))["params"]}, extra

    def reconstructed(params, x):
        return jnp.clip(net.apply({"params": params["net"]}, x), -1, 1)

    def reconstructions(params, extra, key, batch):
        """Held-out images and, right of each, what their latents are decoded to."""
        x = batch["image"][:32]
        return jnp.stack([x, reconstructed(params, x)], 1).reshape(-1, *shape)

    @jax.jit
    def measure(params, batch):
        x = batch["image"]
        out = reconstructed(params, x)
        return jnp.stack([jnp.mean(jnp.abs(out - x)), jnp.mean(psnr(x, out))])

    def evaluate(params, extra, key, batches, count):
        error, ratio = sum(measure(params, next(batches)) for _ in range(count)) / count
        return {"mean_absolute_error": error, "psnr_db": ratio}

    rate = warmup_cosine(2e-3 if config.first_channels < 64 else 4.5e-6 * config.data.batch_size, config.train.steps, 100, 0.1)
    players = {"net": optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))}
    phases = [Phase("net", losses.generator(train=True))]
    if config.adversarial:
        phases.append(Phase("critic", losses.adversary))
        players["critic"] = optax.adam(rate, b1=0.5, b2=0.9)
    return Stage(
        name="autoencoder",
        data=config.data,
        train=config.train,
        init=init,
        phases=phases,
        optimizers=players,
        ema={"net": ramped(0.998)},
        pictures={"reconstructions": reconstructions},
        validate=losses.generator(train=False),
        evaluate=evaluate,
    )
