"""StyleGAN2's training step and generator against a plain PyTorch network of the same shape, and FIR against convolution."""

from typing import Any

from benchmarks.timing import Row, alternate, missing, ratio, spread

SIDE, WIDTH, BATCH, Z = 32, 64, 16, 64


def peer() -> tuple[Any, Any]:
    """(generator, discriminator) in PyTorch: the paper's layers in the plainest way, weights modulated image by image."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
    fir = torch.outer(taps, taps) / taps.sum() ** 2

    def filtered(x: Any, up: int, down: int, pad: tuple[int, int], gain: float) -> Any:
        b, c, h, w = x.shape
        if up > 1:
            x = F.pad(x.reshape(b, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(b, c, h * up, w * up)
        x = F.pad(x, (pad[0], pad[1], pad[0], pad[1]))
        return F.conv2d(x, (fir * gain)[None, None].repeat(c, 1, 1, 1), groups=c, stride=down)

    class Dense(nn.Module):
        def __init__(self, i: int, o: int, act: bool = False, bias: float = 0.0):
            super().__init__()
            self.w, self.b, self.act = nn.Parameter(torch.randn(o, i)), nn.Parameter(torch.full((o,), bias)), act

        def forward(self, x: Any) -> Any:
            x = F.linear(x, self.w / self.w.shape[1] ** 0.5, self.b)
            return F.leaky_relu(x, 0.2) * 2**0.5 if self.act else x

    class Styled(nn.Module):
        def __init__(self, i: int, o: int, size: int, up: bool = False, rgb: bool = False):
            super().__init__()
            self.affine, self.up, self.rgb = Dense(Z, i, bias=1.0), up, rgb
            self.w, self.b = nn.Parameter(torch.randn(o, i, size, size)), nn.Parameter(torch.zeros(o))
            self.strength = nn.Parameter(torch.zeros(()))

        def forward(self, x: Any, w: Any) -> Any:
            b, i, h, wd = x.shape
            s = self.affine(w) / (i**0.5 if self.rgb else 1)
            k = self.w[None] * s[:, None, :, None, None]
            if not self.rgb:
                k = k * (k.square().sum((2, 3, 4)) + 1e-8).rsqrt()[:, :, None, None, None]
            x = x.reshape(1, b * i, h, wd)
            if self.up:
                x = F.conv_transpose2d(x, k.transpose(1, 2).reshape(b * i, -1, 3, 3), stride=2, groups=b)
                x = filtered(x.reshape(b, -1, 2 * h + 1, 2 * wd + 1), 1, 1, (1, 1), 4.0)
            else:
                x = F.conv2d(x, k.reshape(-1, i, *k.shape[3:]), padding=k.shape[3] // 2, groups=b).reshape(b, -1, h, wd)
            if self.rgb:
                return x + self.b[None, :, None, None]
            x = x + self.strength * torch.randn(b, 1, *x.shape[2:]) + self.b[None, :, None, None]
            return F.leaky_relu(x, 0.2) * 2**0.5

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mapping = nn.Sequential(*[Dense(Z, Z, True) for _ in range(4)])
            self.const = nn.Parameter(torch.randn(WIDTH, 4, 4))
            sides = [4 << i for i in range(4)]
            self.first = Styled(WIDTH, WIDTH, 3)
            self.ups = nn.ModuleList([Styled(WIDTH, WIDTH, 3, up=True) for _ in sides[1:]])
            self.convs = nn.ModuleList([Styled(WIDTH, WIDTH, 3) for _ in sides[1:]])
            self.rgbs = nn.ModuleList([Styled(WIDTH, 3, 1, rgb=True) for _ in sides])

        def forward(self, z: Any) -> Any:
            w = self.mapping(z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt())
            x = self.first(self.const[None].repeat(len(z), 1, 1, 1), w)
            image = self.rgbs[0](x, w)
            for up, conv, rgb in zip(self.ups, self.convs, self.rgbs[1:]):
                x = conv(up(x, w), w)
                image = filtered(image, 2, 1, (2, 1), 4.0) + rgb(x, w)
            return image

    class Conv(nn.Module):
        def __init__(self, i: int, o: int, size: int, down: bool = False, act: bool = True, gain: float = 1.0):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(o, i, size, size)), nn.Parameter(torch.zeros(o))
            self.down, self.act, self.gain = down, act, gain

        def forward(self, x: Any) -> Any:
            size = self.w.shape[2]
            if self.down:
                x = filtered(x, 1, 2 if size == 1 else 1, (1, 1) if size == 1 else (2, 2), 1.0)
            k = self.w / (self.w[0].numel()) ** 0.5
            x = F.conv2d(x, k, stride=2 if self.down and size == 3 else 1, padding=0 if self.down else size // 2)
            x = x + self.b[None, :, None, None]
            return (F.leaky_relu(x, 0.2) * 2**0.5 if self.act else x) * self.gain

    class Discriminator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rgb = Conv(3, WIDTH, 1)
            self.blocks = nn.ModuleList([
                nn.ModuleList([
                    Conv(WIDTH, WIDTH, 3), Conv(WIDTH, WIDTH, 3, True, gain=0.5**0.5),
                    Conv(WIDTH, WIDTH, 1, True, act=False, gain=0.5**0.5),
                ])
                for _ in range(3)
            ])  # fmt: skip
            self.last = Conv(WIDTH + 1, WIDTH, 3)
            self.fc, self.out = Dense(WIDTH * 16, WIDTH, True), Dense(WIDTH, 1)

        def forward(self, x: Any) -> Any:
            x = self.rgb(x)
            for a, b, skip in self.blocks:  # pyright: ignore
                x = b(a(x)) + skip(x)
            y = x.reshape(4, -1, *x.shape[1:])
            y = ((y - y.mean(0)).square().mean(0) + 1e-8).sqrt().mean((1, 2, 3)).reshape(-1, 1, 1, 1)
            x = torch.cat([x, y.repeat(4, 1, 4, 4)], 1)
            return self.out(self.fc(self.last(x).flatten(1)))[:, 0]

    return Generator(), Discriminator()


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

    tg, td = peer()
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
