"""Latent diffusion (Rombach et al. 2022, arXiv:2112.10752), with a U-Net or a DiT (Peebles & Xie 2022, arXiv:2212.09748).

    python -m experiments.latent_diffusion                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --first vq --prior dit     # codes rather than a KL, a transformer
    python -m experiments.latent_diffusion --condition class
    python -m experiments.latent_diffusion --preset glyphs            # from captions: minutes to hours, as long as you let it
    python -m experiments.latent_diffusion sample --prompt "a red A on blue"
    python -m experiments.latent_diffusion --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.latent_diffusion --preset imagenet256       # DiT-XL/2, for accelerators

Two stages, one command: the autoencoder, then the diffusion of its latents. Target of the imagenet256 preset: FID 2.27 with
guidance 1.5 (DiT, table 4), after 7 million steps of 256 images.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import jgen
from experiments._diffusion import Knobs, Solver, free_guidance, optimizer, solve, unet
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment
    from jgen.models.autoencoder import AutoencoderKL, VQModel


@dataclass(frozen=True)
class Sampling(Solver):
    sampler: Literal["heun", "euler", "euler_ancestral", "dpm", "dpm_singlestep", "dpm_sde"] = "dpm"
    """dpm is multistep DPM-Solver++."""
    steps: int = 25
    grid: Literal["karras", "log_snr", "uniform"] = "log_snr"
    """How the noise levels are spaced."""
    prompt: str = ""
    """Caption of all images, for a model of captions; empty takes those of held-out images."""


@dataclass(frozen=True)
class Config(Knobs):
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=400, log_every=10, save_every=200, sample_every=200)
    """Of the autoencoder."""
    prior_steps: int = 600
    """Of the diffusion."""
    sampling: Sampling = Sampling()
    first: Literal["kl", "vq"] = "kl"
    """Bottleneck of the autoencoder."""
    first_channels: int = 16
    """Width of the autoencoder's first level."""
    first_mult: tuple[int, ...] = (1, 2)
    """Width of its levels; each but the last halves the resolution."""
    first_blocks: int = 1
    latent_channels: int = 4
    kl_weight: float = 1e-3
    codes: int = 256
    """Of vq."""
    adversarial: float = 0.0
    """Weight of a patch discriminator's loss; 0 for none."""
    adversarial_from: int = 250
    """Step at which it begins to count."""
    perceptual: float = 0.0
    """Weight of a distance in the features of the small classifier that jgen ships for the set."""
    scale: float = 0.0
    """Latents are multiplied by it; 0 measures 1 / their deviation on the first images."""
    prior: Literal["unet", "dit"] = "unet"
    condition: Literal["none", "class", "text"] = "none"
    drop_label: float = 0.1
    """Share of classes or captions left out in training, for classifier-free guidance."""
    schedule: Literal["scaled_linear", "linear", "cosine"] = "linear"
    diffusion_steps: int = 1000
    patch: int = 1
    """Of DiT, in latents."""
    depth: int = 4
    """Blocks of DiT."""
    width: int = 128
    """Of DiT."""
    text_width: int = 64
    """Of the caption encoder."""
    attention: tuple[int, ...] = (1,)
    channels: int = 32
    channel_mult: tuple[int, ...] = (1, 2)
    head_channels: int = 0


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        data=DataConfig("fashion_mnist", batch_size=64),
        train=TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500),
        prior_steps=4000,
        first_mult=(1, 2, 2),
        channel_mult=(1,),
        num_res_blocks=2,
        channels=96,
        learning_rate=1e-3,
    ),
    "glyphs": Config(
        data=DataConfig("glyphs", batch_size=64, resolution=32, channels=3),
        train=TrainConfig(steps=1000, log_every=10, save_every=500, sample_every=500),
        prior_steps=20_000,
        first_mult=(1, 2, 2),
        condition="text",
        channels=96,
        channel_mult=(1, 2),
        learning_rate=5e-4,
    ),
    "imagenet256": Config(
        data=DataConfig("imagenet2012", batch_size=256, resolution=256, flip=True),
        train=TrainConfig(steps=250_000, log_every=100, save_every=10_000, sample_every=10_000),
        prior_steps=7_000_000,
        sampling=Sampling("dpm_sde", steps=250, guidance=1.5),
        first_channels=128,
        first_mult=(1, 2, 4, 4),
        first_blocks=2,
        kl_weight=1e-6,
        adversarial=0.5,
        adversarial_from=50_001,
        scale=0.18215,
        prior="dit",
        condition="class",
        patch=2,
        depth=28,
        width=1152,
        learning_rate=1e-4,
        warmup=0,
        final_learning_rate=1.0,
        ema=0.9999,
    ),
}


def first_stage(config: Config) -> "AutoencoderKL | VQModel":
    from jgen.models.autoencoder import AutoencoderKL, VQModel

    channels, levels = config.data.shape[-1], len(config.first_mult)
    shape: Any = dict(
        image_channels=channels,
        z_channels=config.latent_channels,
        embed=config.latent_channels,
        channels=config.first_channels,
        channel_mult=config.first_mult,
        num_res_blocks=config.first_blocks,
        groups=min(32, config.first_channels // 4),
    )
    return VQModel(**shape, codes=config.codes) if config.first == "vq" else AutoencoderKL(**shape, attention=(levels - 1,))


def prior_network(config: Config) -> Any:
    """(params, x, t, label or caption, train=) -> the noise; and its initialisation."""
    import jax
    import jax.numpy as jnp

    from jgen.errors import UserError
    from jgen.models.dit import DiT
    from jgen.models.text import ByteEncoder

    text, classes = config.condition == "text", config.data.num_classes if config.condition == "class" else 0
    if text and config.prior == "dit":
        raise UserError("condition=text: captions are for the U-Net prior; DiT takes classes")
    if config.condition == "class" and not classes:
        raise UserError(f"condition=class: {config.data.name} has no labels")
    encoder = ByteEncoder(config.text_width)
    if config.prior == "dit":
        net: Any = DiT(
            config.latent_channels, config.width, config.depth, 4 if config.width < 512 else 16, config.patch, classes
        )
    else:
        more: dict[str, Any] = dict(transformer_depth=1, num_heads=4) if text else {}
        net = unet(
            replace(config, conditional=bool(classes), drop_label=config.drop_label * bool(classes)),
            config.latent_channels, config.train.dtype, config.train.remat, **more,
        )  # fmt: skip

    def apply(params, x, t, label, **kwargs):
        if text:
            context = encoder.apply({"params": params["text"]}, label)
            return net.apply({"params": params["net"]}, x, t, context=context, **kwargs)
        return net.apply({"params": params["net"]}, x, t, label, **kwargs)

    def init(key, latents, caption):
        keys = jax.random.split(key)
        if not text:
            label = jnp.zeros((1,), jnp.int32) if classes else None
            return {"net": net.init(keys[0], latents, jnp.zeros((1,)), label)["params"]}
        encoded = encoder.init(keys[1], caption)
        context = encoder.apply(encoded, caption)
        made = net.init(keys[0], latents, jnp.zeros((1,)), context=context)["params"]
        return {"net": made, "text": encoded["params"]}

    return apply, init


def captions(config: Config, prompt: str) -> Any:
    """uint8 [N, L]: the prompt, or the captions of 64 held-out images. Raises UserError for one that does not fit."""
    import numpy as np

    from jgen.data import open_source
    from jgen.errors import UserError

    source = open_source(replace(config.data, split="test", limit=0), config.train.seed)
    first = source[0]
    if "caption" not in first:
        raise UserError(f"condition=text: {config.data.name} has no captions")
    if not prompt:
        return np.stack([source[i]["caption"] for i in range(64)])
    length, text = len(first["caption"]), prompt.encode("utf-8")
    if len(text) > length:
        raise UserError(f"prompt: {len(text)} bytes long; captions of {config.data.name} have at most {length}")
    return np.frombuffer(text.ljust(length, b"\0"), np.uint8)[None]


def autoencoder_losses(config: Config, net: Any) -> Any:
    """(generator's loss, discriminator's loss) of the first stage, each a function of train."""
    import jax
    import jax.numpy as jnp

    from jgen.metrics.extract import open_extractor
    from jgen.models.patchgan import PatchGAN
    from jgen.models.vqvae import straight_through
    from jgen.objectives import first_stage

    pixels = config.data.shape
    critic = PatchGAN(32 if config.first_channels < 64 else 64, 1 if pixels[0] < 16 else 2 if pixels[0] < 64 else 3)
    count = pixels[0] * pixels[1] * pixels[2]
    judge = open_extractor("", config.data.name) if config.perceptual else None

    def reconstruct(params, x, key):
        """(image, penalty of the bottleneck)."""
        variables = {"params": params}
        if config.first == "vq":
            q = net.apply(variables, net.apply(variables, x, method="encode"), method="quantize")
            out = net.apply(variables, straight_through(q), method="decode")
            return out, first_stage.codebook_loss(q, legacy=False)
        mean, log_variance = net.apply(variables, x, method="encode")
        z = mean + jnp.exp(0.5 * log_variance) * jax.random.normal(key, mean.shape)
        penalty = config.kl_weight * jnp.mean(first_stage.kl(mean, log_variance)) / count
        return net.apply(variables, z, method="decode"), penalty

    def discriminate(params, extra, x, train=True):
        variables = {"params": params["critic"], "batch_stats": extra["critic"]}
        return critic.apply(variables, x, train=train, mutable=["batch_stats"])

    def nll(params, extra, x, out):
        distance = None
        if judge is not None:
            features = [judge.apply(params["judge"], (v + 1) * 127.5)[0] for v in (x, out)]
            distance = jnp.mean(jnp.square(features[0] - features[1]), -1)[:, None, None, None]
        return jnp.mean(first_stage.reconstruction(x, out, distance, config.perceptual))

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
            begun = first_stage.begun(extra["updates"], config.adversarial_from)
            extra = {**extra, "updates": extra["updates"] + 1} if train else extra
            return error + penalty + begun * weight * value, (extra, {**metrics, "fooled": value, "weight": weight})

        return loss

    def adversary(params, extra, key, batch):
        out = jax.lax.stop_gradient(reconstruct(params["net"], batch["image"], key)[0])
        real, _ = discriminate(params, extra, batch["image"])
        fake, after = discriminate(params, extra, out)
        begun = first_stage.begun(extra["updates"], config.adversarial_from)
        return begun * first_stage.discriminator_loss(real, fake), ({**extra, "critic": after["batch_stats"]}, {})

    def init(key):
        """What the losses need besides the autoencoder: (params, extra)."""
        params, extra = {}, {}
        if judge is not None:
            params["judge"] = jax.tree.map(jnp.asarray, judge.variables)
        if config.adversarial:
            made = critic.init(key, jnp.zeros((1, *pixels)), train=False)
            params["critic"] = made["params"]
            extra = {"critic": made["batch_stats"], "updates": jnp.zeros((), jnp.int32)}
        return params, extra

    return generator, adversary, init


def autoencoder_stage(config: Config, net: Any) -> Any:
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


def build(config: Config) -> "Experiment":
    import jax
    import jax.numpy as jnp
    import numpy as np

    from jgen import samplers, schedules
    from jgen.data import open_source, resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment, Stage
    from jgen.objectives import diffusion, edm
    from jgen.objectives import first_stage as bottleneck
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    net = first_stage(config)
    first = autoencoder_stage(config, net)
    text, grid = config.condition == "text", net.grid(*config.data.shape[:2])
    chain = {"linear": schedules.linear, "cosine": schedules.cosine, "scaled_linear": schedules.scaled_linear}[config.schedule](
        config.diffusion_steps
    )
    apply, init_prior = prior_network(config)
    examples = captions(config, "") if text else None
    null, conditional = (0 if text else config.data.num_classes), config.condition != "none"

    def encode(params, x, key):
        """Latents of images, before they are scaled."""
        found = net.apply({"params": params["net"]}, x, method="encode")
        if config.first == "vq":
            return found
        return found[0] + jnp.exp(0.5 * found[1]) * jax.random.normal(key, found[0].shape)

    def init(key):
        params, extra = first.init(key)
        latents, caption = jnp.zeros((1, *grid)), None if examples is None else jnp.asarray(examples[:1])
        scale = jnp.asarray(config.scale or 1.0, jnp.float32)
        return {**params, "prior": init_prior(jax.random.fold_in(key, 1), latents, caption)}, {**extra, "scale": scale}

    def begin(params, extra, fresh, fresh_extra):
        """The autoencoder as it was trained, a fresh prior, and the scale of the latents. UserError for other sizes."""
        if jax.tree.map(jnp.shape, params["net"]) != jax.tree.map(jnp.shape, fresh["net"]):
            raise UserError(f"prior: latents of {grid} are not those of the autoencoder it begins from")
        if not config.scale:
            source = open_source(config.data, config.train.seed)
            images = np.stack([source[i]["image"] for i in range(min(len(source), 256))]) / np.float32(127.5) - 1
            scale = bottleneck.scale_factor(encode(params, jnp.asarray(images), jax.random.key(0)))
            fresh_extra = {**fresh_extra, "scale": scale}
        return {**fresh, **{k: v for k, v in params.items() if k != "prior"}}, fresh_extra

    def objective(train):
        dropped = dict(drop_label=config.drop_label, null_label=null)
        own = diffusion.simple(apply, chain, player="prior", conditional=conditional, train=train, **dropped)

        def loss(params, extra, key, batch):
            latents = extra["scale"] * encode(params, batch["image"], jax.random.fold_in(key, 7))
            told = {"label": batch["caption"]} if text else {}
            return own(params, extra, key, {**batch, **told, "image": jax.lax.stop_gradient(latents)})

        return loss

    def sample(params, extra, keys, options: Sampling):
        label = None
        if text:
            told = jnp.asarray(captions(config, options.prompt))
            label = told[jax.vmap(lambda k: jax.random.randint(jax.random.fold_in(k, 1 << 30), (), 0, len(told)))(keys)]
        elif options.prompt:
            raise UserError(f"prompt={options.prompt}: this model has no captions; train one with --condition text")
        else:
            label = samplers.class_labels(keys, options.label, null if conditional else 0)

        def call(x, sigma, label):
            return edm.denoiser(lambda x, t: apply(params["prior"], x, t, label), edm.chain(chain))(x, sigma)

        denoise = free_guidance(replace(config, data=replace(config.data, num_classes=null)), call, label, options.guidance)
        z = solve(denoise, options, keys, grid, float(chain.sigma[0]), float(chain.sigma[-1])) / extra["scale"]
        method = "decode_nearest" if config.first == "vq" else "decode"
        return jnp.clip(net.apply({"params": params["net"]}, z, method=method), -1, 1)

    validate = objective(train=False)

    def evaluate(params, extra, key, batches, count):
        run = jax.jit(lambda key, batch: validate(params, extra, key, batch)[0])
        return {"loss": sum(run(jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count}

    second = Stage(
        name="diffusion",
        data=config.data,
        train=replace(config.train, steps=config.prior_steps),
        init=init,
        phases=[Phase("prior", objective(train=True))],
        optimizers={"prior": optimizer(config, config.prior_steps)},
        ema={"prior": ramped(config.ema)},
        sample=sample,
        options=config.sampling,
        validate=validate,
        evaluate=evaluate,
        begin=begin,
    )
    return Experiment([first, second])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
