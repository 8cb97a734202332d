"""Annealed Langevin dynamics and predictor-corrector sampling."""

from dataclasses import replace
from functools import partial

from benchmarks.timing import Row, alternate, details, missing, ratio

SIZE, WIDTH, DEPTH = 16, 32, 4


def langevin() -> list[Row]:
    """Annealed Langevin of 64 images, L = 10, T = 100, against the same small network in PyTorch's loop."""
    if why := missing("torch"):
        return [Row("langevin", float("nan"), "x", ">= 1.3", None, why)]
    import flax.linen as nn
    import jax
    import jax.numpy as jnp
    import torch

    from jgen import samplers
    from jgen.arrays import expand_dims_like
    from jgen.samplers.langevin import geometric
    from jgen.sharding import batch_sharding, make_mesh

    class Net(nn.Module):
        @nn.compact
        def __call__(self, x, sigma):
            h = x
            for _ in range(DEPTH):
                h = nn.elu(nn.Conv(WIDTH, (3, 3))(h))
            return nn.Conv(1, (3, 3))(h) / expand_dims_like(sigma, x)

    net, sigmas = Net(), geometric(1.0, 0.01, 10)
    params = net.init(jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)), jnp.ones(1))
    mesh = make_mesh()

    @partial(jax.jit, out_shardings=batch_sharding(mesh))
    def sample(params, keys):
        x = samplers.noise(keys, (SIZE, SIZE, 1))
        field = lambda x, sigma: net.apply(params, x, sigma)  # noqa: E731
        return samplers.annealed_langevin(field, x, sigmas, keys, steps_each=100, step_size=2e-5, denoise=False)

    layers = []
    for i in range(DEPTH):
        layers += [torch.nn.Conv2d(WIDTH if i else 1, WIDTH, 3, padding=1), torch.nn.ELU()]
    peer = torch.nn.Sequential(*layers, torch.nn.Conv2d(WIDTH, 1, 3, padding=1))
    peer = peer.to(memory_format=torch.channels_last)  # pyright: ignore

    @torch.no_grad()
    def loop():
        x = torch.randn(64, 1, SIZE, SIZE)
        for sigma in sigmas:
            size = 2e-5 * (sigma / sigmas[-1]) ** 2
            for _ in range(100):
                x = x + size * peer(x) / sigma + (2 * size) ** 0.5 * torch.randn_like(x)
        return x

    keys = jax.device_put(samplers.image_keys(0, 64), batch_sharding(mesh))
    times = alternate({"jgen": lambda: jax.block_until_ready(sample(params, keys)), "torch": loop}, 5)
    value = ratio(times, "torch", "jgen")
    return [Row("langevin", value, "x", ">= 1.3", value >= 1.3, details(times))]


def pc_memory() -> list[Row]:
    """Memory of predictor-corrector sampling with 1,000 steps over that with 40."""
    import jax
    import jax.numpy as jnp

    from experiments import score_sde
    from jgen import samplers, sde
    from jgen.data import resolve
    from jgen.recipes.score.sde import network
    from jgen.samplers import pc

    config = replace(score_sde.Config(), data=resolve(score_sde.Config().data))
    net = network(config.sde, config.network, config.labels, config.data, config.train)
    params = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), jnp.zeros(1))
    peaks = {}
    for steps in (40, 1000):
        process = sde.vp(steps=steps)

        def sample(params, keys, process=process):
            score = sde.score_of(lambda x, t: net.apply(params, x, t), process)
            return pc.predictor_corrector(process, score, samplers.noise(keys, (8, 8, 1)), keys)

        analysis = jax.jit(sample).lower(params, samplers.image_keys(0, 16)).compile().memory_analysis()
        assert analysis is not None
        peaks[steps] = analysis.temp_size_in_bytes
    value = peaks[1000] / peaks[40]
    detail = ", ".join(f"{k} steps {v / 1e6:.2f} MB" for k, v in peaks.items())
    return [Row("pc_memory", value, "x", "<= 1.01", value <= 1.01, detail)]


BENCHMARKS = {"langevin": langevin, "pc_memory": pc_memory}
