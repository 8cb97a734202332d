"""Diffusion: DPM-Solver++ against diffusers', a DiT's training step against its PyTorch port, what guidance costs."""

from typing import Any

from benchmarks.timing import Row, alternate, missing, ratio, spread


def _detail(times: dict[str, list[float]]) -> str:
    return ", ".join(f"{k} {spread(v)}" for k, v in times.items())


def dpm() -> list[Row]:
    """DPM-Solver++ 2M, 20 steps of 16 images, against diffusers' scheduler with the same network."""
    if why := missing("torch", "diffusers"):
        return [Row("dpm", float("nan"), "x", ">= 1.3", None, why)]
    import jax
    import torch
    from diffusers import DPMSolverMultistepScheduler

    from benchmarks.unet import SIZE, ours, theirs
    from jgen import samplers, schedules, sigmas
    from jgen.objectives import edm
    from jgen.train.sharding import batch_sharding, make_mesh

    _, net, params = ours(64, 32)
    chain = schedules.linear()
    levels = sigmas.of_schedule(chain, 20)

    @jax.jit
    def sample(params: Any, keys: Any) -> Any:
        denoise = edm.denoiser(lambda x, t: net.apply({"params": params}, x, t), edm.chain(chain))
        return samplers.dpm_solver(denoise, levels[0] * samplers.noise(keys, (SIZE, SIZE, 1)), levels)

    keys = jax.device_put(samplers.image_keys(0, 16), batch_sharding(make_mesh()))
    model, scheduler = theirs(64).eval(), DPMSolverMultistepScheduler(num_train_timesteps=1000, solver_order=2)

    @torch.no_grad()
    def sample_theirs() -> None:
        scheduler.set_timesteps(20)
        x = torch.randn(16, 1, SIZE, SIZE)
        for t in scheduler.timesteps:
            x = scheduler.step(model(x, t).sample, t, x).prev_sample

    times = alternate({"jgen": lambda: jax.block_until_ready(sample(params, keys)), "diffusers": sample_theirs}, 5)
    value = ratio(times, "diffusers", "jgen")
    return [Row("dpm", value, "x", ">= 1.3", value >= 1.3, _detail(times))]


def guidance() -> list[Row]:
    """A DDIM step with classifier-free guidance, both calls in one batch, against one without."""
    import jax

    from experiments import ddpm
    from jgen import samplers
    from jgen.config import DataConfig
    from jgen.train.sharding import batch_sharding, make_mesh

    data = DataConfig("digits", batch_size=64, shape=(28, 28, 1), num_classes=10)
    (stage,) = ddpm.build(ddpm.Config(data=data, conditional=True, drop_label=0.1, channel_mult=(1, 2, 2))).stages
    params, extra = jax.jit(stage.init)(jax.random.key(0))
    keys = jax.device_put(samplers.image_keys(0, 64), batch_sharding(make_mesh()))
    sides: dict[str, Any] = {}
    for name, scale in (("plain", 1.0), ("guided", 2.0)):
        options = ddpm.Sampling("ddim", steps=5, guidance=scale)
        run = jax.jit(lambda params, keys, options=options: stage.sample(params, extra, keys, options))
        sides[name] = lambda run=run: jax.block_until_ready(run(params, keys))
    times = alternate(sides, 9)
    value = ratio(times, "guided", "plain")
    return [Row("guidance", value, "x", "<= 2.05", value <= 2.05, _detail(times))]


def dit_step() -> list[Row]:
    """A training step of a DiT (12 blocks of 192, 32x32 images in patches of 4) against diffusers' port of it."""
    if why := missing("torch", "diffusers"):
        return [Row("dit_step", float("nan"), "x", ">= 1.0", None, why)]
    import jax.numpy as jnp
    import numpy as np
    import torch
    from diffusers import DiTTransformer2DModel

    from benchmarks.steps import our_step, simple_loss, their_step
    from jgen import schedules
    from jgen.models.dit import DiT
    from jgen.objectives import diffusion

    batch, side, width, heads = 32, 32, 192, 3
    net = DiT(3, width, 12, heads, 4, 10, own_embedders=True)
    loss = diffusion.simple(
        lambda p, x, t, label, **kw: net.apply({"params": p}, x, t, label), schedules.linear(), conditional=True
    )
    images = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
    data = {"image": images, "label": np.arange(batch) % 10}
    train, _ = our_step(net, loss, data, jnp.zeros((1, side, side, 3)), jnp.zeros(1), jnp.zeros(1, jnp.int32))

    model = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width // heads, in_channels=3, out_channels=3, num_layers=12,
        sample_size=side, patch_size=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    x0, label = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.arange(batch) % 10
    train_theirs = their_step(model, simple_loss(lambda x, t: model(x, timestep=t, class_labels=label).sample, x0))
    times = alternate({"jgen": train, "diffusers": train_theirs}, 8)
    value = ratio(times, "diffusers", "jgen")
    return [Row("dit_step", value, "x", ">= 1.0", value >= 1, _detail(times))]


def edm_step() -> list[Row]:
    """A training step of EDM's two networks (32 images of 32x32) against their authors' own, which physicsnemo carries."""
    if why := missing("torch", "physicsnemo", install="nvidia-physicsnemo"):
        return [Row("edm_step", float("nan"), "x", ">= 1.0", None, why)]
    import jax.numpy as jnp
    import numpy as np
    import torch
    from physicsnemo.models import diffusion_unets

    from benchmarks.steps import check_size, our_step, their_step
    from jgen.models.edm import DhariwalUNet, SongUNet
    from jgen.objectives import edm

    rows, batch, side = [], 32, 32
    images = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
    for name, own, peer in (
        ("SongUNet", SongUNet, diffusion_unets.SongUNet),
        ("DhariwalUNet", DhariwalUNet, diffusion_unets.DhariwalUNet),
    ):
        shared: dict[str, Any] = dict(channel_mult=(1, 2, 2), num_blocks=2, dropout=0.0)
        net = own(3, 64, attention_resolutions=(8,), **shared)
        loss = edm.denoising(
            lambda p, x, noise, label, net=net, **kw: net.apply({"params": p}, x, noise), edm.edm(), edm.edm_levels()
        )
        train, params = our_step(net, loss, {"image": images}, jnp.zeros((1, side, side, 3)), jnp.zeros(1))
        model = peer(side, 3, 3, model_channels=64, attn_resolutions=[8], **shared)
        check_size(model, params)
        layouts = {"torch": torch.contiguous_format, "torch-cl": torch.channels_last}
        for layout, kind in layouts.items():
            x0 = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=kind)
            moved = model.to(memory_format=kind)
            times = alternate({"jgen": train, layout: their_step(moved, _edm_loss(moved, x0))}, 4)
            value = ratio(times, layout, "jgen")
            rows.append(Row(f"edm_step/{name}/{layout}", value, "x", ">= 1.0", value >= 1, _detail(times)))
    return rows


def _edm_loss(model: Any, x0: Any) -> Any:
    """EDM's loss (equations 2, 7 and 8) in PyTorch."""
    import torch

    def loss() -> Any:
        sigma = torch.exp(torch.randn(len(x0), 1, 1, 1) * 1.2 - 1.2)
        total = sigma**2 + 0.25
        x = x0 + sigma * torch.randn_like(x0)
        out = model(x / total.sqrt(), sigma.log().flatten() / 4, None)
        denoised = 0.25 / total * x + sigma * 0.5 / total.sqrt() * out
        return (total / (0.5 * sigma) ** 2 * (denoised - x0) ** 2).mean()

    return loss


BENCHMARKS = {"dpm": dpm, "guidance": guidance, "dit_step": dit_step, "edm_step": edm_step}
