"""StyleGAN2's training step and generator against a plain PyTorch network of the same shape, and FIR against convolution."""

from typing import Any

from benchmarks.timing import Row, alternate, missing, ratio, spread

BATCH = 16
SIDE, WIDTH, Z = 32, 64, 64


def ours() -> tuple[Any, Any]:
    from jgen.models.gan.stylegan2 import Discriminator, Generator

    shared = dict(channel_base=WIDTH * SIDE, channel_max=WIDTH)
    g = Generator(z_dim=Z, w_dim=Z, resolution=SIDE, mapping_layers=4, mapping_lr_mul=1.0, **shared)
    return g, Discriminator(resolution=SIDE, **shared)


def stylegan2() -> list[Row]:
    """The main phases of both players with Adam, and images a second of the generator."""
    if why := missing("torch"):
        return [Row("stylegan2", float("nan"), "x", ">= 1.3", None, why)]
    import jax
    import jax.numpy as jnp
    import optax
    import torch
    from torch.nn import functional as F

    from benchmarks import stylegan2_torch
    from jgen.edit.noise import planes
    from jgen.models.gan.stylegan2 import noise_planes
    from jgen.objectives import stylegan
    from jgen.train import Phase, init_state, make_step
    from jgen.train.sharding import batch_sharding, make_mesh, replicated

    mesh, (g, d) = make_mesh(), ours()
    nets = stylegan.Nets(
        map=lambda p, z, c: g.apply({"params": p}, z, c, method="map"),
        synthesize=lambda p, ws, noise: g.apply({"params": p}, ws, noise, method="synthesize"),
        discriminate=lambda p, x, c: d.apply({"params": p}, x, c),
        noise=lambda keys: planes(keys, noise_planes(SIDE)), z_dim=Z, num_ws=g.num_ws, mixing=0.0,
    )  # fmt: skip
    params = {
        "g": g.init(jax.random.key(0), jnp.zeros((1, Z)))["params"],
        "d": d.init(jax.random.key(1), jnp.zeros((1, SIDE, SIDE, 3)))["params"],
    }
    weights = jax.device_put(jax.tree.map(jnp.copy, params["g"]), replicated(mesh))  # the step gives its own away
    optimizers = {"g": optax.adam(2e-3, 0.0, 0.99), "d": optax.adam(2e-3, 0.0, 0.99)}
    phases = [Phase("g", stylegan.generator_loss(nets)), Phase("d", stylegan.discriminator_loss(nets))]
    state = jax.device_put(init_state(params, {"w_avg": jnp.zeros(Z)}, optimizers), replicated(mesh))
    step = jax.jit(make_step(phases, optimizers), donate_argnums=0)
    images = jax.random.normal(jax.random.key(2), (BATCH, SIDE, SIDE, 3))
    batch = jax.device_put({"image": images}, batch_sharding(mesh))
    held = [state]

    def train() -> None:
        held[0], metrics = step(held[0], jax.random.key(3), batch)
        jax.block_until_ready(metrics)

    tg, td = stylegan2_torch.Generator(), stylegan2_torch.Discriminator()
    og, od = (torch.optim.Adam(n.parameters(), 2e-3, (0.0, 0.99)) for n in (tg, td))
    real = torch.randn(BATCH, 3, SIDE, SIDE)

    def train_peer() -> None:
        td.requires_grad_(False)
        og.zero_grad()
        F.softplus(-td(tg(torch.randn(BATCH, Z)))).mean().backward()
        og.step()
        td.requires_grad_(True)
        od.zero_grad()
        with torch.no_grad():
            fake = tg(torch.randn(BATCH, Z))
        (F.softplus(td(fake)).mean() + F.softplus(-td(real)).mean()).backward()
        od.step()

    times = alternate({"jgen": train, "torch": train_peer}, 8)
    value = ratio(times, "torch", "jgen")
    rows = [Row("stylegan2/step", value, "x", ">= 1.3", value >= 1.3, ", ".join(f"{k} {spread(v)}" for k, v in times.items()))]
    z = jax.device_put(jax.random.normal(jax.random.key(4), (64, Z)), batch_sharding(mesh))

    @jax.jit
    def make(params: Any, z: Any) -> Any:
        noise = planes(jax.random.split(jax.random.key(5), 64), noise_planes(SIDE))
        return g.apply({"params": params}, z, None, noise)

    def make_peer() -> None:
        with torch.no_grad():
            tg(torch.randn(64, Z))

    times = alternate({"jgen": lambda: jax.block_until_ready(make(weights, z)), "torch": make_peer}, 8)
    value = ratio(times, "torch", "jgen")
    detail = ", ".join(f"{k} {64 / sorted(v)[len(v) // 2]:.0f} images/s" for k, v in times.items())
    return [*rows, Row("stylegan2/generator", value, "x", ">= 1.3", value >= 1.3, detail)]


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
        detail = ", ".join(f"{k} {spread(v)}" for k, v in times.items())
        rows.append(Row(f"fir/{name}", value, "x", "<= 1.3", value <= 1.3, detail))
    return rows


BENCHMARKS = {"stylegan2": stylegan2, "fir": fir}
