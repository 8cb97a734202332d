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
    )
    return VQModel(**shape, codes=config.codes) if config.first == "vq" else AutoencoderKL(**shape, attention=(levels - 1,))


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


def autoencoder_losses(config: "Config", net: Any) -> Any:
    """(generator's loss, discriminator's loss) of the first stage, each a function of train."""
    import jax
    import jax.numpy as jnp

    from jgen.models.patchgan import PatchGAN
    from jgen.objectives import first_stage

    pixels = config.data.shape
    since = config.adversarial_from * config.train.accumulate  # updates are counted once for every part of a step
    critic = PatchGAN(32 if config.first_channels < 64 else 64, 1 if pixels[0] < 16 else 2 if pixels[0] < 64 else 3)
    reconstruct = reconstructor(config, net)
    distance, judge = perceptual_distance(config)

    def discriminate(params, extra, x, train=True):
        variables = {"params": params["critic"], "batch_stats": extra["critic"]}
        return critic.apply(variables, x, train=train, mutable=["batch_stats"])

    def nll(params, extra, x, out):
        apart = None if distance is None else distance(params["judge"], x, out)[:, None, None, None]
        return jnp.mean(first_stage.reconstruction(x, out, apart, config.perceptual))

    def generator(train):
        def loss(params, extra, key, batch):
            x = batch["image"]
            out, penalty = reconstruct(params["net"], x, key)
            error = nll(params, extra, x, out)
            metrics = {"reconstruction": error, "penalty": penalty}
            if not config.adversarial:
                return error + penalty, (extra, metrics)

            def with_last(kernel):
                last = {**params["net"]["decoder"]["conv_out"], "kernel": kernel}
                own = {**params["net"], "decoder": {**params["net"]["decoder"], "conv_out": last}}
                return reconstruct(own, x, key)[0]

            def fooled(out):
                return first_stage.generator_loss(discriminate(params, extra, out)[0])

            kernel = params["net"]["decoder"]["conv_out"]["kernel"]
            weight = first_stage.adaptive_weight(
                lambda k: nll(params, extra, x, with_last(k)), lambda k: fooled(with_last(k)), kernel, config.adversarial
            )
            value = fooled(out)
            begun = first_stage.begun(extra["updates"], since)
            extra = {**extra, "updates": extra["updates"] + 1} if train else extra
            return error + penalty + begun * weight * value, (extra, {**metrics, "fooled": value, "weight": weight})

        return loss

    def adversary(params, extra, key, batch):
        out = jax.lax.stop_gradient(reconstruct(params["net"], batch["image"], key)[0])
        real, _ = discriminate(params, extra, batch["image"])
        fake, after = discriminate(params, extra, out)
        begun = first_stage.begun(extra["updates"], since)
        return begun * first_stage.discriminator_loss(real, fake), ({**extra, "critic": after["batch_stats"]}, {})

    def init(key):
        """What the losses need besides the autoencoder: (params, extra)."""
        params, extra = {}, {}
        if distance is not None:
            params["judge"] = jax.tree.map(jnp.asarray, judge)
        if config.adversarial:
            made = critic.init(key, jnp.zeros((1, *pixels)), train=False)
            params["critic"] = made["params"]
            extra = {"critic": made["batch_stats"], "updates": jnp.zeros((), jnp.int32)}
        return params, extra

    return generator, adversary, init


def autoencoder_stage(config: "Config", net: Any) -> Any:
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.experiment import Stage
    from jgen.metrics.image_quality import psnr
    from jgen.train import Phase
    from jgen.train.rates import ramped, warmup_cosine

    shape, (generator, adversary, more) = config.data.shape, autoencoder_losses(config, net)

    def init(key):
        keys = jax.random.split(key)
        params, extra = more(keys[1])
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
    phases = [Phase("net", generator(train=True))]
    if config.adversarial:
        phases.append(Phase("critic", adversary))
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
        validate=generator(train=False),
        evaluate=evaluate,
    )
