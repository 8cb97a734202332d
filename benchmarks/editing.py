"""StyleGAN2's projector of a batch of images against PyTorch."""

import statistics
from collections.abc import Callable
from typing import Any

from benchmarks.timing import Row, alternate_apart, missing, ratio

Run = Callable[[], Any]
IMAGES, STEPS, WHOLE = 8, 50, 1000
"""Targets, steps that are timed, and steps of a projection."""


def our_projector() -> Run:
    """By EfficientNet-Lite0's features of 64x64, which need no files of weights: random ones cost as much."""
    import jax
    import jax.numpy as jnp

    from benchmarks.gan import SIDE, Z, ours
    from jgen.edit.noise import planes
    from jgen.edit.projector import ProjectorOptions, project
    from jgen.models.efficientnet_lite import EfficientNetLite
    from jgen.models.gan.stylegan2 import noise_planes
    from jgen.sharding import batch_sharding, make_mesh

    (g, _), net, many = ours(), EfficientNetLite(head=False), batch_sharding(make_mesh())
    params = jax.jit(g.init)(jax.random.key(0), jnp.zeros((1, Z)))
    weights = jax.jit(net.init)(jax.random.key(1), jnp.zeros((1, 64, 64, 3)))
    targets = jax.device_put(jax.random.normal(jax.random.key(2), (IMAGES, SIDE, SIDE, 3)), many)
    keys = jax.device_put(jax.random.split(jax.random.key(3), IMAGES), many)
    maps = jax.device_put(planes(keys, noise_planes(SIDE)), many)

    def synthesis(ws: Any, noise: Any) -> Any:
        return g.apply(params, ws, noise, method="synthesize")

    def features(images: Any) -> Any:
        large = jnp.repeat(jnp.repeat(images, 2, 1), 2, 2)
        taps = net.apply(weights, large).taps  # pyright: ignore
        return jnp.concatenate([tap.reshape(len(tap), -1) for tap in taps], -1)

    options = ProjectorOptions(num_steps=STEPS)
    start, num_ws = jnp.zeros((1, Z)), g.num_ws

    @jax.jit
    def run(targets: Any, maps: Any, keys: Any) -> Any:
        return project(synthesis, features, targets, start, jnp.ones(()), maps, keys, num_ws, options)[0]

    return lambda: jax.block_until_ready(run(targets, maps, keys))


def their_projector() -> Run:
    import torch
    from torch.nn import functional as F

    from benchmarks import features_torch, stylegan2_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    g, net = stylegan2_torch.Generator().requires_grad_(False), features_torch.frozen()
    layers = [g.first, *[layer for pair in zip(g.ups, g.convs) for layer in pair]]
    sides = [4, *[side for side in (8, 16, 32) for _ in range(2)]]

    def features(images: Any) -> Any:
        return torch.cat([tap.flatten(1) for tap in net(F.interpolate(images, scale_factor=2))], 1)

    def rough(plane: Any) -> Any:
        total = torch.zeros(())
        while True:
            total = total + sum((plane * plane.roll(1, axis)).mean((1, 2, 3)).square().sum() for axis in (2, 3))
            if plane.shape[2] <= 8:
                return total
            plane = F.avg_pool2d(plane, 2)

    def run() -> None:
        targets = features(torch.randn(IMAGES, 3, 32, 32))
        w = torch.zeros(IMAGES, stylegan2_torch.Z, requires_grad=True)
        noise = [torch.randn(IMAGES, 1, side, side, requires_grad=True) for side in sides]
        optimizer = torch.optim.Adam([w, *noise], 0.1, (0.9, 0.999))
        for layer, plane in zip(layers, noise):
            layer.given = plane  # pyright: ignore
        for step in range(STEPS):
            image = g.synthesize(w + torch.randn_like(w) * 0.05 * (1 - step / STEPS))
            loss = (targets - features(image)).square().sum() + 1e5 * sum(rough(plane) for plane in noise)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for plane in noise:
                    plane -= plane.mean((1, 2, 3), keepdim=True)
                    plane *= plane.square().mean((1, 2, 3), keepdim=True).rsqrt()

    return run


def projector() -> list[Row]:
    """1,000 steps of a batch of 8, by the time of 50."""
    if why := missing("torch"):
        return [Row("projector", float("nan"), "x", ">= 1.5", None, why)]
    times = alternate_apart({"jgen": our_projector, "torch": their_projector}, 4, calls=1, warm=1)
    value = ratio(times, "torch", "jgen")
    whole = ", ".join(f"{k} {statistics.median(v) * WHOLE / STEPS:.1f} s for {WHOLE} steps" for k, v in times.items())
    return [Row("projector", value, "x", ">= 1.5", value >= 1.5, whole)]


BENCHMARKS = {"projector": projector}
