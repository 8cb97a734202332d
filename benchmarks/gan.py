"""StyleGAN2's training step and generator against a plain PyTorch network of the same shape, and FIR against convolution."""

from collections.abc import Callable
from typing import Any

from benchmarks.timing import Row, alternate, alternate_apart, details, faster, missing, ratio

Run = Callable[[], Any]
BATCH, IMAGES = 16, 64
"""Images of a training step, and of the generator alone."""
SIDE, WIDTH, Z = 32, 64, 64


def ours() -> tuple[Any, Any]:
    from jgen.models.gan.stylegan2 import Discriminator, Generator

    shared = dict(channel_base=WIDTH * SIDE, channel_max=WIDTH)
    g = Generator(z_dim=Z, w_dim=Z, resolution=SIDE, mapping_layers=4, mapping_lr_mul=1.0, **shared)
    return g, Discriminator(resolution=SIDE, **shared)


def our_step() -> Run:
    """The main phases of both players with Adam, on all devices."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.config import DataConfig
    from jgen.models.gan.stylegan2 import noise_planes
    from jgen.objectives import gan
    from jgen.objectives.adversarial import discriminator_loss, generator_loss
    from jgen.recipes.gan.networks import style_networks
    from jgen.recipes.gan.style import StyleModel
    from jgen.sharding import batch_sharding, jit_step, make_mesh, replicated
    from jgen.train import Phase, init_state, make_step

    mesh, (g, d) = make_mesh(), ours()
    networks = style_networks(g, d, noise_planes(SIDE))
    form = StyleModel(networks, DataConfig(shape=(SIDE, SIDE, 3)), classes=0).gan({})
    params = {
        "g": g.init(jax.random.key(0), jnp.zeros((1, Z)))["params"],
        "d": d.init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 3)))["params"],
    }
    optimizers = {"g": optax.adam(2e-3, 0.0, 0.99), "d": optax.adam(2e-3, 0.0, 0.99)}
    phases = [Phase("g", generator_loss(form, gan.non_saturating)), Phase("d", discriminator_loss(form, gan.non_saturating))]
    state = jax.device_put(init_state(params, {"w_avg": jnp.zeros(Z)}, optimizers), replicated(mesh))
    step = jit_step(make_step(phases, optimizers))
    images = jax.random.normal(jax.random.key(2), (BATCH, SIDE, SIDE, 3))
    batch = jax.device_put({"image": images}, batch_sharding(mesh))
    held = [state]

    def run() -> None:
        held[0], metrics = step(held[0], jax.random.key(3), batch)
        jax.block_until_ready(metrics)

    return run


def their_step() -> Run:
    from benchmarks.stylegan2_torch import Generator, adversarial_step

    return adversarial_step(Generator(), BATCH)


def our_generator() -> Run:
    import jax
    import jax.numpy as jnp

    from jgen.edit.noise import planes
    from jgen.models.gan.stylegan2 import noise_planes
    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, (g, _) = make_mesh(), ours()
    params = jax.device_put(g.init(jax.random.key(0), jnp.zeros((1, Z)))["params"], replicated(mesh))
    z = jax.device_put(jax.random.normal(jax.random.key(4), (IMAGES, Z)), batch_sharding(mesh))

    @jax.jit
    def make(params: Any, z: Any) -> Any:
        noise = planes(jax.random.split(jax.random.key(5), IMAGES), noise_planes(SIDE))
        return g.apply({"params": params}, z, None, noise)

    return lambda: jax.block_until_ready(make(params, z))


def their_generator() -> Run:
    import torch

    from benchmarks import stylegan2_torch

    g = stylegan2_torch.Generator()

    def run() -> None:
        with torch.no_grad():
            g(torch.randn(IMAGES, Z))

    return run


def stylegan2() -> list[Row]:
    """The training step of both players, and the generator, each side in a process of its own."""
    if why := missing("torch"):
        return [Row("stylegan2", float("nan"), "x", ">= 1.3", None, why)]
    rows = []
    for part, mine, peer in [("step", our_step, their_step), ("generator", our_generator, their_generator)]:
        times = alternate_apart({"jgen": mine, "torch": peer}, 8)
        rows.append(faster(f"stylegan2/{part}", times, 1.3))
    return rows


def fir() -> list[Row]:
    """A convolution with a filtered resampling by 2 against the plain convolution at the larger of its sides."""
    import jax
    from jax import random

    from jgen.nn.conv import convolve
    from jgen.nn.fir import conv2d_resample, setup_filter, upsample_conv

    f, rows = setup_filter((1, 3, 3, 1)), []
    kernel = random.normal(random.key(0), (3, 3, WIDTH, WIDTH))
    small, large = (random.normal(random.key(1), (16, side, side, WIDTH)) for side in (32, 64))

    def runs(resampled: Any, x: Any) -> dict[str, Any]:
        plain = jax.jit(lambda x: convolve(x, kernel, 1, "SAME"))
        other = jax.jit(resampled)
        return {"plain": lambda: jax.block_until_ready(plain(large)), "fir": lambda: jax.block_until_ready(other(x))}

    sides = {
        "up": runs(lambda x: upsample_conv(x, kernel), small),
        "down": runs(lambda x: conv2d_resample(x, kernel, f, down=2, padding=1), large),
    }
    for name, pair in sides.items():
        times = alternate(pair, 10)
        value = ratio(times, "fir", "plain")
        detail = details(times)
        rows.append(Row(f"fir/{name}", value, "x", "<= 1.3", value <= 1.3, detail))
    return rows


BENCHMARKS = {"stylegan2": stylegan2, "fir": fir}
