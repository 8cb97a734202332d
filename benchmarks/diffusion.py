"""Sampling of diffusion models: DPM-Solver++ against diffusers', and what guidance costs."""

from typing import Any

from benchmarks.timing import Row, alternate, details, missing, ratio


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
    from jgen.sharding import batch_sharding, make_mesh

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
    return [Row("dpm", value, "x", ">= 1.3", value >= 1.3, details(times))]


def guidance() -> list[Row]:
    """DDIM with classifier-free guidance against DDIM without, 64 images: a CPU makes the two calls of so many in turn."""
    import jax

    from experiments import ddpm
    from jgen import samplers
    from jgen.config import DataConfig, LabelConfig, UNetConfig, changed
    from jgen.sharding import batch_sharding, make_mesh

    data = DataConfig("digits", batch_size=64, shape=(28, 28, 1), num_classes=10)
    config = ddpm.Config(data=data, labels=LabelConfig(True, 0.1), network=UNetConfig(channel_mult=(1, 2, 2)))
    (stage,) = ddpm.build(config).stages
    params, extra = jax.jit(stage.init)(jax.random.key(0), {})
    keys = jax.device_put(samplers.image_keys(0, 64), batch_sharding(make_mesh()))
    sides: dict[str, Any] = {}
    for name, scale in (("plain", 1.0), ("guided", 2.0)):
        options = changed(stage.options, {"sampler": "ddim", "steps": 5, "guidance": scale})
        run = jax.jit(lambda params, keys, options=options: stage.sample(params, extra, keys, options))
        sides[name] = lambda run=run: jax.block_until_ready(run(params, keys))
    times = alternate(sides, 9)
    value = ratio(times, "guided", "plain")
    return [Row("guidance", value, "x", "<= 2.05", value <= 2.05, details(times))]


BENCHMARKS = {"dpm": dpm, "guidance": guidance}
