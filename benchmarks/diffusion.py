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
    import jax
    import jax.numpy as jnp
    import numpy as np
    import optax
    import torch
    from diffusers import DiTTransformer2DModel

    from jgen import schedules
    from jgen.models.dit import DiT
    from jgen.objectives import diffusion
    from jgen.train import Phase, init_state, make_step
    from jgen.train.sharding import batch_sharding, make_mesh, replicated

    batch, side, width, heads = 32, 32, 192, 3
    net, mesh = DiT(3, width, 12, heads, 4, 10, own_embedders=True), make_mesh()
    shapes = (jnp.zeros((1, side, side, 3)), jnp.zeros(1), jnp.zeros(1, jnp.int32))
    optimizers = {"net": optax.adam(1e-4)}
    made = jax.jit(lambda key: init_state({"net": net.init(key, *shapes)["params"]}, {}, optimizers))(jax.random.key(0))
    held = [jax.device_put(made, replicated(mesh))]
    loss = diffusion.simple(
        lambda p, x, t, label, **kw: net.apply({"params": p}, x, t, label), schedules.linear(), conditional=True
    )
    step = jax.jit(make_step([Phase("net", loss)], optimizers), donate_argnums=0)
    images = np.random.default_rng(0).normal(size=(batch, side, side, 3)).astype(np.float32)
    data = jax.device_put({"image": images, "label": np.arange(batch) % 10}, batch_sharding(mesh))

    def train() -> None:
        held[0], metrics = step(held[0], jax.random.key(0), data)
        jax.block_until_ready((held[0], metrics))

    torch.set_num_threads(jax.device_count() if jax.default_backend() == "cpu" else torch.get_num_threads())
    model = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=width // heads, in_channels=3, out_channels=3, num_layers=12,
        sample_size=side, patch_size=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    alpha_bar = torch.tensor(schedules.linear().alpha_bar, dtype=torch.float32)
    x0, label = torch.tensor(images).permute(0, 3, 1, 2).contiguous(), torch.arange(batch) % 10

    def train_theirs() -> None:
        t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(x0)
        a = alpha_bar[t][:, None, None, None]
        said = model(a.sqrt() * x0 + (1 - a).sqrt() * noise, timestep=t, class_labels=label).sample
        optimizer.zero_grad()
        ((said - noise) ** 2).mean().backward()
        optimizer.step()

    times = alternate({"jgen": train, "diffusers": train_theirs}, 8)
    value = ratio(times, "diffusers", "jgen")
    return [Row("dit_step", value, "x", ">= 1.0", value >= 1, _detail(times))]


BENCHMARKS = {"dpm": dpm, "guidance": guidance, "dit_step": dit_step}
