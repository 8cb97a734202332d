"""Likelihood models against PyTorch: steps of Glow, VDVAE and NVAE, sampling, the DCT, and a cached decode's time a token."""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Row, alternate_apart, faster, missing

Run = Callable[[], Any]
BATCH, IMAGES = 16, 64
"""Images of a training step, and of a draw."""
LEVELS, STEPS, WIDTH = 3, 8, 128
"""Of Glow, at 32x32 in colour."""
VDVAE = "32x2,32d2,16x2,16d2,8x2,8d2,4x1", "4x2,8m4,8x2,16m8,16x3,32m16,32x3"
WINDOW, LENGTHS = 256, (512, 2048)
"""Tuples of a window of DCTransformer, and of sequences."""
BLOCKS = (512, 32, 32, 3, 8, 8)
"""A batch of 512 images of 256x256, as blocks."""


def _data() -> Any:
    from jgen.config import DataConfig

    return DataConfig("cifar10", batch_size=BATCH, shape=(32, 32, 3), num_classes=10)


def our_glow() -> Run:
    from benchmarks.steps import stage_step
    from jgen.config import OptimizerConfig, TrainConfig
    from jgen.config.flow import GlowConfig, GlowSampling
    from jgen.recipes.flow import glow

    config = GlowConfig(LEVELS, STEPS, WIDTH)
    return stage_step(glow.stage(config, OptimizerConfig(1e-4, ema=0.0), _data(), TrainConfig(), GlowSampling()))


def _normflows() -> Any:
    import normflows as nf

    from benchmarks.steps import use_all_cores

    use_all_cores()
    base, flows, merges = [], [], []
    for i in range(LEVELS):
        channels, side = 3 * 2 ** (LEVELS - i), 32 >> (LEVELS - i)
        blocks = [nf.flows.GlowBlock(channels * 2, WIDTH, split_mode="channel", net_actnorm=True) for _ in range(STEPS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        merges += [nf.flows.Merge()] if i else []
        base.append(nf.distributions.DiagGaussian((channels * (1 if i else 2), side, side)))
    return nf.MultiscaleFlow(base, flows, merges, class_cond=False)


def their_glow() -> Run:
    import torch

    from benchmarks.steps import their_step

    model, x = _normflows(), torch.rand(BATCH, 3, 32, 32)
    return their_step(model, lambda: -model.log_prob(x, None).mean())


def our_draw() -> Run:
    import jax
    import jax.numpy as jnp

    from jgen.models.glow import Glow
    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, net = make_mesh(), Glow(LEVELS, STEPS, WIDTH, lu=True)
    shapes = net.latent_shapes((32, 32, 3))
    variables = jax.device_put(jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 32, 32, 3))), replicated(mesh))

    @jax.jit
    def draw(variables: Any, keys: Any) -> Any:
        noise = [jax.vmap(lambda key, s=s: jax.random.normal(key, s))(keys) for s in shapes]
        return net.apply(variables, noise, method="inverse")

    keys = jax.device_put(jax.random.split(jax.random.key(1), IMAGES), batch_sharding(mesh))
    return lambda: jax.block_until_ready(draw(variables, keys))


def their_draw() -> Run:
    import torch

    model = _normflows()

    def run() -> None:
        with torch.no_grad():
            model.sample(IMAGES)

    return run


def our_vdvae() -> Run:
    from benchmarks.steps import stage_step
    from jgen.config import OptimizerConfig, TrainConfig
    from jgen.config.hierarchical import SkippingConfig, VDVAEConfig, VDVAESampling
    from jgen.recipes.autoencoders import vdvae

    config = VDVAEConfig(*VDVAE, 96, latents=16, bottleneck=0.25, mixtures=10)
    optimizer = OptimizerConfig(1e-4, clip=200.0, ema=0.0)
    return stage_step(vdvae.stage(config, SkippingConfig(), optimizer, _data(), TrainConfig(), VDVAESampling()))


def their_vdvae() -> Run:
    import torch

    from benchmarks import hierarchical_torch
    from benchmarks.steps import their_step

    model, x = hierarchical_torch.VDVAE(*VDVAE, 96, 16, 0.25), torch.rand(BATCH, 3, 32, 32) * 2 - 1
    return their_step(model, lambda: model(x))


def our_nvae() -> Run:
    """Without spectral regularisation, which the peer does not have."""
    from benchmarks.steps import stage_step
    from jgen.config import TrainConfig
    from jgen.config.nvae import AdamaxConfig, NVAEConfig, NVAELossConfig, NVAESampling
    from jgen.recipes.autoencoders import nvae

    config = NVAEConfig(32, 16, (3, 3), likelihood="mixture")
    loss = NVAELossConfig(spectral=0.0)
    return stage_step(nvae.stage(config, loss, AdamaxConfig(), _data(), TrainConfig(), NVAESampling()))


def their_nvae() -> Run:
    import torch

    from benchmarks import hierarchical_torch
    from benchmarks.steps import their_step

    model, x = hierarchical_torch.NVAE(32, 16, 3, 32), torch.rand(BATCH, 3, 32, 32) * 2 - 1
    return their_step(model, lambda: model(x))


def glow() -> list[Row]:
    """Glow's step and its samples against normflows, with 1x1 convolutions as LU factors on both sides."""
    if why := missing("torch", "normflows", install="-e '.[oracle]' normflows"):
        return [Row("glow", float("nan"), "x", ">= 1.3", None, why)]
    return [
        faster("glow/step", alternate_apart({"jgen": our_glow, "normflows": their_glow}, 6, calls=2), 1.3, "normflows"),
        faster("glow/sampling", alternate_apart({"jgen": our_draw, "normflows": their_draw}, 6, calls=2), 1.5, "normflows"),
    ]


def hierarchical() -> list[Row]:
    """Steps of VDVAE and NVAE."""
    if why := missing("torch"):
        return [Row("hierarchical", float("nan"), "x", ">= 1.3", None, why)]
    return [
        faster("vdvae/step", alternate_apart({"jgen": our_vdvae, "torch": their_vdvae}, 6, calls=2), 1.3),
        faster("nvae/step", alternate_apart({"jgen": our_nvae, "torch": their_nvae}, 6, calls=2), 1.3),
    ]


def _blocks() -> np.ndarray:
    return np.random.default_rng(0).standard_normal(BLOCKS, np.float32)


def our_dct() -> Run:
    import jax

    from jgen.dct.jpeg import dct
    from jgen.sharding import batch_sharding, make_mesh

    blocks, run = jax.device_put(_blocks(), batch_sharding(make_mesh())), jax.jit(dct)
    return lambda: jax.block_until_ready(run(blocks))


def scipy_dct() -> Run:
    import jax
    from scipy.fft import dctn

    blocks, workers = _blocks(), jax.device_count()
    return lambda: dctn(blocks, axes=(-2, -1), norm="ortho", workers=workers)


def torch_dct() -> Run:
    import torch
    import torch_dct

    from benchmarks.steps import use_all_cores

    use_all_cores()
    blocks = torch.tensor(_blocks())
    return lambda: torch_dct.dct_2d(blocks, norm="ortho")


def dct() -> list[Row]:
    """The DCT of all 8x8 blocks of 512 colour images of 256x256."""
    sides, why = {"jgen": our_dct, "scipy": scipy_dct}, missing("torch_dct", install="torch-dct")
    times = alternate_apart(sides | ({} if why else {"torch-dct": torch_dct}), 6, calls=2)
    return [faster(f"dct/{peer}", times, 1.0, peer) for peer in times if peer != "jgen"]


def _dct_model(length: int) -> tuple[Any, Any]:
    """(DCTransformer with windows of 256 tuples over sequences of so many, its weights)."""
    import jax

    from jgen.config.autoregressive import DCTransformerConfig
    from jgen.recipes.autoregressive.dctransformer import Model

    model = Model(DCTransformerConfig(width=64, heads=4, chunk=WINDOW, overlap=WINDOW // 8, length=length), _data())
    return model, jax.jit(lambda key: model.init(key, {})[0])(jax.random.key(0))


def cached(length: int) -> Run:
    """A draw, tuple by tuple."""
    import jax

    from jgen.samplers import image_keys
    from jgen.samplers.sparse import sparse_autoregressive

    model, params = _dct_model(length)

    @jax.jit
    def run(params: Any, keys: Any) -> Any:
        return sparse_autoregressive(model.decoder(params, BATCH, None), model.layout, model.chunks, keys)

    keys = image_keys(0, BATCH)
    return lambda: jax.block_until_ready(run(params, keys))


def whole() -> Run:
    """One forward of a whole window, which a decode without a cache takes for every tuple."""
    import jax

    from jgen.dct.sequence import start

    model, params = _dct_model(LENGTHS[0])
    window = start((BATCH, model.chunks.size + 1))
    image = np.zeros((BATCH, model.layout.channels, model.layout.positions), np.int32)
    run = jax.jit(model.net.apply)
    return lambda: jax.block_until_ready(run({"params": params["net"]}, window, image, np.zeros(BATCH, np.int32)))


def sparse_decode() -> list[Row]:
    """DCTransformer's cached decode: time a tuple of longer sequences over shorter ones, and against whole forwards."""
    sides = {str(n): partial(cached, n) for n in LENGTHS} | {"forward": whole}
    times = alternate_apart(sides, 4, calls=1, warm=1)
    short, long = (statistics.median(times[str(n)]) / n for n in LENGTHS)
    forward = statistics.median(times["forward"])
    detail = f"{1e3 * short:.2f} and {1e3 * long:.2f} ms a tuple of sequences of {LENGTHS[0]} and {LENGTHS[1]}"
    return [
        Row("sparse_decode/length", long / short, "x", "<= 1.1", long / short <= 1.1, detail),
        Row("sparse_decode/forward", forward / short, "x", "", None, f"{1e3 * forward:.2f} ms a forward of {WINDOW} tuples"),
    ]


BENCHMARKS = {"glow": glow, "hierarchical": hierarchical, "dct": dct, "sparse_decode": sparse_decode}
