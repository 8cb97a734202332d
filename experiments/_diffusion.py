"""What the diffusion experiments share: the knobs of a U-Net and its training, and sampling in continuous coordinates."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from jgen.config import DataConfig, MeshConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.models.edm import SongUNet
    from jgen.models.unet import UNet
    from jgen.schedules import Schedule


@dataclass(frozen=True)
class Knobs:
    data: DataConfig = DataConfig("digits", batch_size=64)
    train: TrainConfig = TrainConfig(steps=600, save_every=300, sample_every=300)
    mesh: MeshConfig = MeshConfig()
    channels: int = 32
    """Width of the U-Net's first level."""
    channel_mult: tuple[int, ...] = (1, 2)
    """Width of each level as multiples; each but the last halves the resolution."""
    num_res_blocks: int = 1
    attention: tuple[int, ...] = (2,)
    """Levels with attention, as downsampling factors."""
    head_channels: int = 64
    """Channels of an attention head; 0 for a single head."""
    scale_shift_norm: bool = False
    """Of ADM's U-Net: the time (and class) scales and shifts the features, rather than being added to them."""
    resblock_updown: bool = False
    """Of ADM's U-Net: resample inside residual blocks rather than by a convolution of its own."""
    dropout: float = 0.0
    conditional: bool = False
    """Give the network the class."""
    drop_label: float = 0.0
    """Share of the labels left out in training, for classifier-free guidance."""
    learning_rate: float = 2e-3
    """Of Adam, reached by a linear warm-up."""
    warmup: int = 100
    """Steps of it."""
    final_learning_rate: float = 0.05
    """Share of the learning rate that a cosine falls to by the last step; 1 keeps it constant, as the papers do."""
    ema: float = 0.995
    """Decay of the weights' moving average, reached as (1 + step) / (10 + step) grows."""


ChainName = Literal["linear", "cosine", "scaled_linear"]
"""How the noise grows along a chain (`jgen.schedules`)."""
Prediction = Literal["eps", "x0", "v"]
SolverName = Literal[
    "heun", "euler", "euler_ancestral", "dpm_2", "dpm_2_ancestral", "dpm", "dpm_singlestep", "dpm_sde", "dpmpp_2s_ancestral",
    "dpmpp_sde", "unipc", "lms",
]  # fmt: skip
"""Samplers of the continuous coordinates (`jgen.samplers`)."""
CHURNED = ("heun", "euler", "dpm_2")
"""Those that take churn."""


@dataclass(frozen=True)
class ChainKnobs(Knobs):
    """Of a model with a discrete chain besides."""

    schedule: ChainName = "linear"
    """How the noise grows along the chain."""
    diffusion_steps: int = 1000
    prediction: Prediction = "eps"
    """What the network predicts."""


FASHION_MNIST: dict[str, Any] = dict(
    data=DataConfig("fashion_mnist", batch_size=64),
    train=TrainConfig(steps=1100, save_every=220, sample_every=220),
    channel_mult=(1, 2, 2),
    attention=(4,),
    learning_rate=1e-3,
)
"""Knobs of 28x28 presets: about 25 minutes on 2 CPU cores."""

CIFAR10: dict[str, Any] = dict(
    data=DataConfig("cifar10", batch_size=128, flip=True),
    channels=128,
    channel_mult=(1, 2, 2, 2),
    learning_rate=2e-4,
    warmup=5000,
    final_learning_rate=1.0,
    ema=0.9999,
)
"""Knobs of DDPM's run and of those that took them over."""


def paper_steps(steps: int) -> TrainConfig:
    """Training as long as a paper's, with a record every hundred steps."""
    return TrainConfig(steps=steps, log_every=100, save_every=10_000, sample_every=10_000)


@dataclass(frozen=True)
class Solver:
    """Sampling in continuous coordinates."""

    sampler: SolverName = "heun"
    """dpm is multistep DPM-Solver++, dpm_sde the same with noise. One network call a step, but two in each step but the last of
    heun, dpm_2, dpm_2_ancestral, dpmpp_2s_ancestral and dpmpp_sde."""
    steps: int = 18
    order: int = 2
    """Of dpm, dpm_singlestep, dpm_sde, unipc and lms, 1 to 3."""
    grid: Literal["karras", "log_snr", "uniform"] = "karras"
    """How the noise levels are spaced."""
    churn: float = 0.0
    """Of heun, euler and dpm_2: noise added on the way (EDM's S_churn)."""
    label: int = -1
    """Class of all images; -1 draws one for each. For a class-conditional model."""
    guidance: float = 1.0
    """Classifier-free guidance, u + guidance (c - u): 1 is without. For a model trained with drop_label."""
    guidance_from: float = 0.0
    """Guide only at noise levels sigma above this one"""
    guidance_to: float = 1e9
    """and below this one."""
    threshold: float = 0.0
    """Scale clean images down by this quantile of their pixels where it is beyond -1 or 1 rather than clip them, for strong
    guidance (Imagen: 0.995); 0 clips."""


@dataclass(frozen=True)
class ChainSolver(Solver):
    """The same for a model of a discrete chain, which has times to go along."""

    grid: Literal["time", "log_snr", "karras", "uniform"] = "log_snr"
    """How the noise levels of the continuous samplers are spaced: as the chain's times, or of themselves."""


def null_label(config: Knobs) -> int:
    """The label that stands for none: one above the classes."""
    return config.data.num_classes


def check_drop_label(config: Knobs) -> None:
    """Raises UserError unless it is a share below 1."""
    from jgen.errors import UserError

    if not 0 <= config.drop_label < 1:
        raise UserError(f"drop_label={config.drop_label}: must be a share, from 0 to below 1")


def classes(config: Knobs) -> int:
    """Labels the network knows: the classes, and with drop_label one for none. 0 for an unconditional one."""
    from jgen.data import classes_of
    from jgen.errors import UserError

    if config.drop_label and not config.conditional:
        raise UserError(f"drop_label={config.drop_label}: only a conditional model has labels to leave out")
    check_drop_label(config)
    return classes_of(config.data, config.conditional) + (config.drop_label > 0)


def asked(config: Knobs, keys: Any, label: int) -> Any:
    """The class of every image: `label`, or one drawn for each where it is -1; None for an unconditional model."""
    from jgen import samplers
    from jgen.data import classes_of

    return samplers.class_labels(keys, label, classes_of(config.data, config.conditional))


def unet(config: Knobs, channels: int, dtype: str, remat: bool, **more: Any) -> "UNet":
    """ADM's U-Net of so many output channels, unconditional unless `config.conditional`."""
    import jax.numpy as jnp

    from jgen.models.unet import UNet
    from jgen.nn.norm import groups_of

    return UNet(
        channels=config.channels,
        out_channels=channels,
        num_res_blocks=config.num_res_blocks,
        channel_mult=config.channel_mult,
        attention_resolutions=config.attention,
        num_classes=classes(config),
        head_channels=config.head_channels or None,
        scale_shift_norm=config.scale_shift_norm,
        resblock_updown=config.resblock_updown,
        dropout=config.dropout,
        # With a group a channel, normalisation would cancel what the time embedding adds.
        groups=groups_of(config.channels),
        dtype=jnp.dtype(dtype),
        remat=remat,
        **more,
    )


def song_knobs(config: Knobs, attention: Sequence[int]) -> dict[str, Any]:
    """Arguments that the networks of `jgen.models.edm` share; attention: sides in pixels."""
    import jax.numpy as jnp

    return dict(
        out_channels=config.data.shape[-1],
        channels=config.channels,
        channel_mult=config.channel_mult,
        num_blocks=config.num_res_blocks,
        attention_resolutions=tuple(attention),
        dropout=config.dropout,
        classes=classes(config) and config.data.num_classes,  # these networks take no class as zeros, not as one more
        dtype=jnp.dtype(config.train.dtype),
    )


def song_unet(config: Knobs, kind: Literal["ddpmpp", "ncsnpp"], attention: Sequence[int]) -> "SongUNet":
    """DDPM++ or NCSN++ (Song et al. 2021)."""
    from jgen.models.edm import SongUNet

    fourier = dict(embedding="fourier", channel_mult_noise=2, encoder="residual", taps=(1, 3, 3, 1))
    return SongUNet(**song_knobs(config, attention), **(fourier if kind == "ncsnpp" else {}))


def optimizer(config: Knobs, steps: int) -> Any:
    """Adam with clipped gradients, its rate warmed up and then falling along a cosine."""
    import optax

    from jgen.train.rates import warmup_cosine

    rate = warmup_cosine(config.learning_rate, steps, config.warmup, config.final_learning_rate)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def free_guidance(
    config: Knobs, options: Solver, call: Any, label: Any, null: int | None = None, chain: "Schedule | None" = None
) -> Any:
    """(x, t) -> call(x, t, label) with the options' classifier-free guidance.

    null: the label for none, unless one above the classes. chain: whose steps t are, where they are not noise levels. Raises
    UserError for a model that can't be guided.
    """
    import jax.numpy as jnp

    from jgen.errors import UserError
    from jgen.samplers import cfg_batched
    from jgen.samplers.guidance import interval

    def plain(x, t):
        return call(x, t, label)

    scale = options.guidance
    if scale == 1:
        return plain
    if label is None:
        raise UserError(f"guidance={scale}: this model is not class-conditional; train one with --conditional --drop-label 0.1")
    if not config.drop_label:
        raise UserError(f"guidance={scale}: the model was trained with all labels; train one with --drop-label 0.1")
    guided = cfg_batched(call, label, null_label(config) if null is None else null, scale)
    if options.guidance_from <= 0 and options.guidance_to >= 1e9:
        return guided
    level = (lambda t: t) if chain is None else (lambda t: jnp.asarray(chain.sigma, jnp.float32)[t])
    return interval(guided, plain, options.guidance_from, options.guidance_to, level)


def bounded(options: Solver, function: Any) -> Any:
    """A predictor or denoiser whose clean images are within [-1, 1], clipped or by the options' dynamic threshold.

    Raises UserError for a threshold that is no quantile.
    """
    from jgen import samplers
    from jgen.errors import UserError

    if not 0 <= options.threshold <= 1:
        raise UserError(f"threshold={options.threshold}: must be a quantile, from 0 (which clips) to 1")
    return samplers.dynamic_threshold(function, options.threshold) if options.threshold else samplers.clip(function)


def mean_loss(loss: Any) -> Any:
    """The evaluation that is a loss, averaged over held-out batches; the weights are arguments of its program."""
    import jax

    run = jax.jit(lambda params, extra, key, batch: loss(params, extra, key, batch)[0])

    def evaluate(params, extra, key, batches, count):
        return {"loss": sum(run(params, extra, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count}

    return evaluate


def levels(options: Solver, sigma_min: float, sigma_max: float) -> Any:
    """The noise levels [steps + 1] of a sampling, 0 last."""
    from jgen import sigmas

    if options.grid == "log_snr":
        return sigmas.exponential(options.steps, sigma_min, sigma_max)
    return sigmas.karras(options.steps, sigma_min, sigma_max, {"karras": 7.0, "uniform": 1.0}[options.grid])


def schedule(config: Any) -> "Schedule":
    """The noise schedule that a config's `schedule` and `diffusion_steps` name."""
    from jgen import schedules

    return schedules.named(config.schedule, config.diffusion_steps)


GONE = 200.0
"""The noise level above which nothing of an image is left: chains are sampled from there, be they noisier or not."""


def chain_levels(options: ChainSolver, chain: "Schedule") -> Any:
    """The same from the last level of a chain, or GONE, to its first; or along its times."""
    from jgen import sigmas

    if options.grid == "time":
        return sigmas.of_schedule(chain, options.steps, GONE)
    return levels(options, float(chain.sigma[0]), min(float(chain.sigma[-1]), GONE))


def check_churn(options: Solver) -> None:
    """Raises UserError for churn under a sampler that takes none."""
    from jgen.errors import UserError

    if options.churn and options.sampler not in CHURNED:
        raise UserError(f"churn={options.churn}: {options.sampler} takes none, only {', '.join(CHURNED)} do")


def solve(denoise: Any, options: Solver, keys: Any, shape: Any, grid: Any) -> Any:
    """Images [B, H, W, C] by the chosen solver over noise levels [steps + 1], one key each.

    Raises UserError for churn under a sampler that takes none.
    """
    from jgen import samplers

    check_churn(options)
    name, x = options.sampler, grid[0] * samplers.noise(keys, shape)
    if name in CHURNED:
        churn = samplers.Churn(options.churn) if options.churn else None
        return getattr(samplers, name)(denoise, x, grid, keys, churn=churn)
    if name in ("euler_ancestral", "dpm_2_ancestral", "dpmpp_2s_ancestral", "dpmpp_sde"):
        return getattr(samplers, name)(denoise, x, grid, keys)
    if name == "dpm_sde":
        return samplers.dpmpp_multistep_sde(denoise, x, grid, keys, order=options.order)
    if name in ("unipc", "lms"):
        return getattr(samplers, name)(denoise, x, grid, order=options.order)
    return samplers.dpm_solver(
        denoise, x, grid, order=options.order, method="singlestep" if name == "dpm_singlestep" else "multistep"
    )


def continuous_stage(
    config: Any,
    name: str,
    net: Any,
    precondition: Any,
    noise_levels: Any,
    ends: tuple[float, float],
    supports: Sequence[str] = ("dtype",),
) -> Any:
    """A stage that trains a network of the continuous coordinates and samples it; ends: the least and greatest level."""
    import jax
    import jax.numpy as jnp

    from jgen.experiment import Stage
    from jgen.objectives import edm
    from jgen.train import Phase
    from jgen.train.rates import ramped

    shape = config.data.shape

    def apply(params, x, noise, label, **kwargs):
        return net.apply({"params": params}, x, noise, label, **kwargs)

    def init(key):
        label = jnp.zeros((1,), jnp.int32) if config.conditional else None
        return {"net": net.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)), label)["params"]}, {}

    def sample(params, extra, keys, options):
        def call(x, sigma, label):
            return edm.denoiser(lambda x, noise: apply(params["net"], x, noise, label), precondition)(x, sigma)

        label = asked(config, keys, options.label)
        denoise = bounded(options, free_guidance(config, options, call, label))
        return jnp.clip(solve(denoise, options, keys, shape, levels(options, *ends)), -1, 1)

    def objective(train):
        dropping = dict(drop_label=config.drop_label, null_label=null_label(config))
        return edm.denoising(
            apply, precondition, noise_levels, conditional=config.conditional, train=train, **dropping
        )  # fmt: skip

    def evaluate(params, extra, key, batches, count):
        """The weighted loss at ten levels, and their mean."""
        sigma = jnp.geomspace(max(ends[0], 0.01), min(ends[1], 50.0), 10)

        @jax.jit
        def losses(params, key, batch):
            x0, label = batch["image"], batch["label"] if config.conditional else None
            denoise = edm.denoiser(lambda x, noise: apply(params["net"], x, noise, label), precondition)

            def one(_, row):
                i, level = row
                noise = jax.random.normal(jax.random.fold_in(key, i), x0.shape)
                terms = edm.loss_terms(denoise, x0, jnp.full(len(x0), level), noise, noise_levels.weight)
                return None, jnp.mean(terms)

            return jax.lax.scan(one, None, (jnp.arange(10), sigma))[1]

        total = sum(losses(params, jax.random.fold_in(key, i), next(batches)) for i in range(count)) / count
        return {"loss (mean of the rows below)": total.mean(), **{f"loss at sigma={s:.3g}": v for s, v in zip(sigma, total)}}

    return Stage(
        name=name,
        data=config.data,
        train=config.train,
        init=init,
        phases=[Phase("net", objective(train=True))],
        optimizers={"net": optimizer(config, config.train.steps)},
        ema={"net": ramped(config.ema)},
        supports=frozenset(supports),
        sample=sample,
        options=config.sampling,
        validate=objective(train=False),
        evaluate=evaluate,
    )
