"""BigGAN's training step and generator against PyTorch, the cost of moved latents, and nearest neighbours against faiss."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks.timing import Row, alternate_apart, details, faster, missing, ratio

Run = Callable[[], Any]
BATCH, IMAGES = 32, 64
"""Images of a training step, and of the generator alone."""
ROWS, SIZE, K = 100_000, 1280, 50
"""Rows whose neighbours are found, numbers of each, and neighbours."""


def _config(**changes: Any) -> Any:
    from jgen.config.biggan import BigGANConfig

    shared = dict(width=32, z_dim=128, shared_dim=128, attention=(), g_rate=2e-4, d_rate=2e-4, beta_2=0.999, ema=0.0)
    return BigGANConfig(**shared | changes)


def our_step() -> Run:
    """A step of each player, with the experiment's stage."""
    from benchmarks.steps import stage_step
    from jgen.config import DataConfig, TrainConfig
    from jgen.config.biggan import TruncatedSampling
    from jgen.recipes.gan.biggan import biggan_stage

    data = DataConfig("cifar10", batch_size=BATCH, shape=(32, 32, 3), num_classes=10)
    return stage_step(biggan_stage(_config(), data, TrainConfig(), TruncatedSampling()))


def their_step() -> Run:
    import torch
    from torch.nn import functional as F

    from benchmarks import biggan_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    g, d = biggan_torch.Generator(), biggan_torch.Discriminator()
    of_g, of_d = (torch.optim.Adam(n.parameters(), 2e-4, (0.0, 0.999)) for n in (g, d))
    real, label = torch.randn(BATCH, 3, 32, 32), torch.randint(0, biggan_torch.CLASSES, (BATCH,))

    def fakes() -> tuple[Any, Any]:
        classes = torch.randint(0, biggan_torch.CLASSES, (BATCH,))
        return g(torch.randn(BATCH, biggan_torch.Z), classes), classes

    def run() -> None:
        d.requires_grad_(True)
        of_d.zero_grad()
        with torch.no_grad():
            fake, classes = fakes()
        logits = d(torch.cat([fake, real]), torch.cat([classes, label]))
        (F.relu(1 + logits[:BATCH]).mean() + F.relu(1 - logits[BATCH:]).mean()).backward()
        of_d.step()
        d.requires_grad_(False)
        of_g.zero_grad()
        (-d(*fakes())).mean().backward()
        of_g.step()

    return run


def our_generator() -> Run:
    import jax
    import jax.numpy as jnp

    from jgen.models.gan.biggan import Generator
    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, g = make_mesh(), Generator(32, width=32, classes=10)
    z, label = jnp.zeros((1, 128)), jnp.zeros((1, 10))
    variables = jax.device_put(jax.jit(g.init)(jax.random.key(0), z, label), replicated(mesh))
    inputs = jax.random.normal(jax.random.key(1), (IMAGES, 128)), jax.nn.one_hot(jnp.arange(IMAGES) % 10, 10)
    inputs = jax.device_put(inputs, batch_sharding(mesh))
    make = jax.jit(g.apply)
    return lambda: jax.block_until_ready(make(variables, *inputs))


def their_generator() -> Run:
    import torch

    from benchmarks import biggan_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    g = biggan_torch.Generator().eval()
    z, label = torch.randn(IMAGES, biggan_torch.Z), torch.arange(IMAGES) % biggan_torch.CLASSES

    def run() -> None:
        with torch.no_grad():
            g(z, label)

    return run


def biggan() -> list[Row]:
    """The step of both players and the generator, ch 32 at 32x32, each side in a process of its own."""
    if why := missing("torch"):
        return [Row("biggan", float("nan"), "x", ">= 1.3", None, why)]
    return [
        faster("biggan/step", alternate_apart({"jgen": our_step, "torch": their_step}, 6, calls=2), 1.3),
        faster("biggan/generator", alternate_apart({"jgen": our_generator, "torch": their_generator}, 8), 1.5),
    ]


def moved_step(name: str) -> Run:
    """A step of the digits preset of csgan or logan; "plain": of csgan's players without moves."""
    from benchmarks.steps import stage_step
    from experiments import csgan, logan
    from jgen.config.biggan import TruncatedSampling
    from jgen.recipes.common import resolved
    from jgen.recipes.gan.biggan import biggan_stage

    if name == "plain":
        config = csgan.PRESETS["digits"]
        return stage_step(biggan_stage(config.gan, resolved(config).data, config.train, TruncatedSampling()))
    module = {"csgan": csgan, "logan": logan}[name]
    (stage,) = module.build(module.PRESETS["digits"]).stages
    return stage_step(stage)


def latent_step() -> list[Row]:
    """What a step with moved latents costs over one without, in the digits presets of csgan and logan."""
    times = alternate_apart({name: partial(moved_step, name) for name in ("plain", "csgan", "logan")}, 6, calls=4)
    detail = details(times)
    return [Row(f"latent_step/{name}", ratio(times, name, "plain"), "x", "", None, detail) for name in ("csgan", "logan")]


def _rows() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((ROWS, SIZE), np.float32)


def our_neighbours() -> Run:
    from jgen.metrics.neighbours import nearest

    x = _rows()
    return lambda: nearest(x, K)


def their_neighbours() -> Run:
    import faiss
    import jax

    x = _rows()
    faiss.omp_set_num_threads(jax.device_count())

    def run() -> None:
        index = faiss.IndexFlatL2(SIZE)
        index.add(x)  # pyright: ignore
        index.search(x, K + 1)  # pyright: ignore - itself is the first

    return run


def neighbours() -> list[Row]:
    """k nearest neighbours of every row, exact, against faiss's exact search."""
    if why := missing("faiss", install="faiss-cpu"):
        return [Row("neighbours", float("nan"), "x", ">= 1.0", None, why)]
    times = alternate_apart({"jgen": our_neighbours, "faiss": their_neighbours}, 1, calls=1, warm=0)
    return [faster("neighbours", times, 1.0, "faiss")]


BENCHMARKS = {"biggan": biggan, "latent_step": latent_step, "neighbours": neighbours}
