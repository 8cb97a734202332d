"""The foundation: training steps, samplers, start-up and data, against PyTorch peers and against themselves."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from typing import Any

from benchmarks.timing import Row, alternate, alternate_apart, details, missing, ratio, seconds, spread

ROUNDS = 5


def limit() -> list[Row]:
    """The limit of this machine: float32 matrix product and 3x3 convolution on all devices."""
    import jax
    import jax.numpy as jnp

    from jgen.nn.conv import plain
    from jgen.sharding import batch_sharding, make_mesh

    rows, mesh = [], make_mesh()
    a, b = jax.device_put(jnp.ones((2048, 1024)), batch_sharding(mesh)), jnp.ones((1024, 1024))
    x, k = jax.device_put(jnp.ones((64, 32, 32, 64)), batch_sharding(mesh)), jnp.ones((3, 3, 64, 64))
    for name, run, flops, args in [
        ("matmul", jax.jit(jnp.matmul), 2 * 2048 * 1024**2, (a, b)),
        ("convolution", jax.jit(plain), 2 * 64 * 32 * 32 * 9 * 64 * 64, (x, k)),
    ]:
        times = alternate({name: lambda run=run, args=args: jax.block_until_ready(run(*args))}, 20)[name]
        rows.append(Row(f"limit/{name}", flops / min(times) / 1e9, "GFLOP/s", "", None, spread(times)))
    return rows


def train_step() -> list[Row]:
    """A training step of the same U-Net against diffusers' in PyTorch (contiguous and channels-last)."""
    if why := missing("torch", "diffusers"):
        return [Row("train_step", float("nan"), "x", ">= 1.0", None, why)]
    from benchmarks.unet import our_step_of, their_step_of

    rows = []
    for head in (64, 8):
        sides = {
            "jgen": partial(our_step_of, head, 32),
            "torch": partial(their_step_of, head, 32),
            "torch-cl": partial(their_step_of, head, 32, channels_last=True),
        }
        times = alternate_apart(sides, ROUNDS)
        detail = details(times)
        for peer in ("torch", "torch-cl"):
            value = ratio(times, peer, "jgen")
            rows.append(Row(f"train_step/head{head}/{peer}", value, "x", ">= 1.0", value >= 1, detail))
    return rows


def conv() -> list[Row]:
    """A 3x3 convolution and its two gradients by Winograd's way, against XLA's own."""
    import jax

    from jgen.nn.conv import conv3x3, plain
    from jgen.sharding import batch_sharding, make_mesh

    rows, mesh = [], make_mesh()
    for size, width in ((32, 64), (16, 128), (8, 256)):
        key = jax.random.key(0)
        x, dy = (jax.device_put(jax.random.normal(key, (32, size, size, width)), batch_sharding(mesh)) for _ in range(2))
        kernel = jax.random.normal(key, (3, 3, width, width))

        sides = {name: jax.jit(partial(_with_gradients, f)) for name, f in (("xla", plain), ("winograd", conv3x3))}
        runs = {name: lambda f=f: jax.block_until_ready(f(x, kernel, dy)) for name, f in sides.items()}  # noqa: B023
        times = alternate(runs, 20)
        detail = details(times)
        rows.append(Row(f"conv/{size}x{size}x{width}", ratio(times, "xla", "winograd"), "x", "", None, detail))
    return rows


def _with_gradients(f: Any, x: Any, kernel: Any, dy: Any) -> Any:
    """f(x, kernel), and what dy comes to when sent back."""
    import jax

    y, back = jax.vjp(f, x, kernel)
    return y, *back(dy)


def ddim() -> list[Row]:
    """DDIM, 50 steps of 16 images, against diffusers' pipeline with the same network."""
    if why := missing("torch", "diffusers"):
        return [Row("ddim", float("nan"), "x", ">= 1.3", None, why)]
    import jax
    from diffusers import DDIMPipeline, DDIMScheduler

    from benchmarks.unet import SIZE, ours, theirs
    from jgen import samplers, schedules
    from jgen.objectives import diffusion
    from jgen.sharding import batch_sharding, make_mesh

    _, net, params = ours(64, 32)
    chain, mesh = schedules.linear(), make_mesh()

    @jax.jit
    def sample(params, keys):
        predict = diffusion.predictor(lambda x, t: net.apply({"params": params}, x, t), chain)
        return samplers.ddim(samplers.clip(predict), chain, samplers.noise(keys, (SIZE, SIZE, 1)), keys, timesteps=50)

    keys = jax.device_put(samplers.image_keys(0, 16), batch_sharding(mesh))
    pipeline = DDIMPipeline(theirs(64), DDIMScheduler(num_train_timesteps=1000))
    pipeline.set_progress_bar_config(disable=True)
    times = alternate(
        {
            "jgen": lambda: jax.block_until_ready(sample(params, keys)),
            "diffusers": lambda: pipeline(batch_size=16, num_inference_steps=50, output_type="np"),
        },
        3,
    )
    value = ratio(times, "diffusers", "jgen")
    return [Row("ddim", value, "x", ">= 1.3", value >= 1.3, details(times))]


def _small() -> tuple:
    """A trained-size digits network with random weights: (stage, params, mesh)."""
    import jax

    from experiments import ddpm
    from jgen.sharding import make_mesh
    from jgen.train.compiled import compile_stage

    (stage,), mesh = ddpm.build(ddpm.Config()).stages, make_mesh()
    compiled = compile_stage(stage, mesh)
    return stage, compiled, compiled.create(jax.random.key(0), {}, None), mesh


def scan_sampler() -> list[Row]:
    """A sampler of S steps against S single jitted steps."""
    import jax
    import jax.numpy as jnp

    from jgen import samplers
    from jgen.samplers.common import shorten

    stage, _, state, _ = _small()
    model = model_of(stage)
    assert model.chain is not None
    chain, keys = shorten(model.chain, 50), samplers.image_keys(0, 64)
    x0 = samplers.noise(keys, stage.data.shape)
    whole = jax.jit(lambda params, x: samplers.ddim(predictor(model, params, stage), model.chain, x, keys, timesteps=50))

    @jax.jit
    def single(params, x, t, a, prev):
        prediction = predictor(model, params, stage)(x, jnp.broadcast_to(t, x.shape[:1]))
        return samplers.ddim_step(x, prediction.x0, a, prev, jnp.zeros_like(x))

    tables = [jnp.asarray(v, jnp.float32) for v in (chain.alpha_bar, chain.alpha_bar_prev)]

    def loop() -> None:
        x = x0
        for i in range(50)[::-1]:
            x = single(state.params, x, int(chain.timesteps[i]), tables[0][i], tables[1][i])
        jax.block_until_ready(x)

    times = alternate({"scan": lambda: jax.block_until_ready(whole(state.params, x0)), "steps": loop}, ROUNDS)
    value = ratio(times, "scan", "steps")
    return [
        Row(
            "scan_sampler",
            value,
            "x",
            "<= 1.05",
            value <= 1.05,
            details(times),
        )
    ]


def model_of(stage):
    """The default experiment's model."""
    from experiments import ddpm
    from jgen.recipes.diffusion.chain import chain_recipe

    c = ddpm.Config()
    return chain_recipe(c.network, c.chain, c.labels, stage.data, c.train, False).model


def predictor(model, params, stage):
    """Its predictor by some weights."""
    from jgen.recipes.diffusion.guidance import Request
    from jgen.recipes.diffusion.sampling import guided_predictor

    return guided_predictor(model, params, Request(), stage.options)


def data_wait() -> list[Row]:
    """How much longer steps of the default experiment take with the pipeline than with one batch that is there."""
    import jax

    from jgen.data import Pipeline

    stage, compiled, state, mesh = _small()
    batches = Pipeline(stage.open_source(), stage.data, 0, mesh).batches()
    held, key, states = next(batches), jax.random.key(0), [state]

    def run(fresh: bool) -> None:
        for _ in range(20):
            states[0], _ = compiled.step(states[0], key, next(batches) if fresh else held)
        jax.block_until_ready(states[0])

    times = alternate({"pipeline": lambda: run(True), "held": lambda: run(False)}, 4 * ROUNDS)
    value = 100 * (ratio(times, "pipeline", "held") - 1)
    detail = details(times) + " for 20 steps"
    return [Row("data_wait", value, "%", "<= 1", value <= 1, detail)]


def scan_steps() -> list[Row]:
    """Ten steps in one dispatch against a loop of ten, on a network so small that dispatch matters."""
    import jax
    import jax.numpy as jnp
    import optax

    from jgen.train import Phase, init_state, make_step
    from jgen.train import scan_steps as scanned

    def loss(params, extra, key, batch):
        h = jnp.tanh(batch["image"] @ params["net"]["a"])
        return jnp.mean((h @ params["net"]["b"] - 1) ** 2), (extra, {})

    optimizers, key = {"net": optax.adam(1e-3)}, jax.random.key(0)
    params = {"net": {"a": 0.1 * jax.random.normal(key, (64, 32)), "b": jnp.ones((32, 1))}}
    step = make_step([Phase("net", loss)], optimizers)
    state, batch = init_state(params, {}, optimizers), {"image": jax.random.normal(key, (32, 64))}
    batches = jax.tree.map(lambda x: jnp.stack([x] * 10), batch)
    one, ten = jax.jit(step), jax.jit(scanned(step))

    def loop() -> None:
        s = state
        for _ in range(100):
            s, _ = one(s, key, batch)
        jax.block_until_ready(s)

    def scan() -> None:
        s = state
        for _ in range(10):
            s, _ = ten(s, key, batches)
        jax.block_until_ready(s)

    times = alternate({"loop": loop, "scan": scan}, 20)
    detail = details(times) + " for 100 steps"
    return [Row("scan_steps", ratio(times, "loop", "scan"), "x", "", None, detail)]


FIRST = """
import time; began = time.time()
import jax
from jgen.config import MeshConfig
from jgen.train.distributed import start
start(MeshConfig(), 64)
from experiments import ddpm
from jgen.data import Pipeline
from jgen.train.compiled import compile_stage
from jgen.sharding import make_mesh
(stage,), mesh = ddpm.build(ddpm.Config()).stages, make_mesh()
compiled = compile_stage(stage, mesh)
state = compiled.create(jax.random.key(0), {}, None)
batch = next(Pipeline(stage.open_source(), stage.data, 0, mesh).batches())
jax.block_until_ready(compiled.step(state, jax.random.key(0), batch))
print(time.time() - began)
"""


def first_step() -> list[Row]:
    """Seconds from starting Python to the end of the default experiment's first step, cold and with a warm cache."""
    rows = []
    with tempfile.TemporaryDirectory() as cache:
        for name, aim in (("cold", 25.0), ("warm", 8.0)):
            env = {**os.environ, "JGEN_CACHE": cache}
            done = subprocess.run([sys.executable, "-c", FIRST], env=env, capture_output=True, text=True, check=True)
            value = float(done.stdout.split()[-1])
            rows.append(Row(f"first_step/{name}", value, "s", f"<= {aim:.0f}", value <= aim, "digits preset"))
    return rows


def sampler_memory() -> list[Row]:
    """Peak memory of sampling 1000 steps over that of 10, as XLA plans it."""
    import jax

    from jgen import samplers
    from jgen.config import changed

    stage, _, state, _ = _small()
    keys = samplers.image_keys(0, 64)
    sizes = {}
    for steps in (10, 1000):
        options = changed(stage.options, {"steps": steps})
        program = jax.jit(lambda p, k, o=options: stage.sample(p, {}, k, o)).lower(state.params, keys).compile()
        memory = program.memory_analysis()
        sizes[steps] = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    value = sizes[1000] / sizes[10]
    detail = ", ".join(f"{k} steps {v / 2**20:.2f} MiB" for k, v in sizes.items())
    return [Row("sampler_memory", value, "x", "1.00", value < 1.005, detail)]


def help_time() -> list[Row]:
    """Seconds of `python -m experiments.ddpm --help`."""
    command = [sys.executable, "-m", "experiments.ddpm", "--help"]
    times = [seconds(lambda: subprocess.run(command, capture_output=True, check=True)) for _ in range(7)]
    value = sorted(times)[len(times) // 2]
    return [Row("help", value, "s", "<= 0.5", value <= 0.5, spread(times))]


BENCHMARKS = {
    "limit": limit,
    "train_step": train_step,
    "conv": conv,
    "ddim": ddim,
    "scan_sampler": scan_sampler,
    "data_wait": data_wait,
    "scan_steps": scan_steps,
    "first_step": first_step,
    "sampler_memory": sampler_memory,
    "help": help_time,
}
