"""Training steps of one network with Adam, in jgen and in PyTorch, as calls that block until they are done."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen import memory
from jgen.sharding import batch_sharding, jit_once, jit_step, make_mesh, replicated
from jgen.train import Phase, init_state, make_step
from jgen.train.compiled import compile_stage
from jgen.train.stage import Stage, batch_shapes, first_batch_shapes

Run = Callable[[], None]


def our_step(net: Any, loss: Any, batch: dict[str, np.ndarray], *inputs: Any) -> tuple[Run, Any]:
    """(the step on all devices of this machine, a copy of the params); inputs: zeros to initialise the network with."""
    mesh, optimizers = make_mesh(), {"net": optax.adam(1e-4)}

    def create(key: jax.Array) -> Any:
        return init_state({"net": net.init(key, *inputs)["params"]}, {}, optimizers)

    state = [jit_once(create, out_shardings=replicated(mesh))(jax.random.key(0))]
    params = jax.tree.map(jnp.copy, state[0].params["net"])  # the step gives its own away
    step = jit_step(make_step([Phase("net", loss)], optimizers))
    data = jax.device_put(batch, batch_sharding(mesh))

    def run() -> None:
        state[0], metrics = step(state[0], jax.random.key(0), data)
        jax.block_until_ready((state[0], metrics))

    run()
    memory.fill()  # as training does after its first step
    return run, params


def stage_step(stage: Stage) -> Run:
    """The whole step of an experiment's stage, as training makes it, on all devices and random images."""
    mesh, random = make_mesh(), np.random.default_rng(0)

    def drawn(shapes: dict[str, Any]) -> dict[str, np.ndarray]:
        whole = {n: random.integers(stage.data.num_classes or 1, size=s.shape) for n, s in shapes.items() if n == "label"}
        return {n: random.standard_normal(s.shape, np.float32) for n, s in shapes.items() if n != "label"} | whole

    compiled = compile_stage(stage, mesh)
    held = [compiled.create(jax.random.key(0), drawn(first_batch_shapes(stage)), None)]
    batch = jax.device_put(drawn(batch_shapes(stage)), batch_sharding(mesh))

    def run() -> None:
        held[0], metrics = compiled.step(held[0], jax.random.key(1), batch)
        jax.block_until_ready((held[0], metrics))

    run()
    memory.fill()
    return run


def their_step(model: Any, loss: Callable[[], Any]) -> Run:
    """The same of a PyTorch model and a loss of it, on as many threads."""
    import torch

    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    use_all_cores()

    def run() -> None:
        value = loss()
        optimizer.zero_grad()
        value.backward()
        optimizer.step()

    return run


def use_all_cores() -> None:
    """Gives PyTorch as many threads as jgen has CPU devices."""
    import torch

    torch.set_num_threads(jax.device_count() if jax.default_backend() == "cpu" else torch.get_num_threads())


def simple_loss(model: Callable[[Any, Any], Any], x0: Any) -> Callable[[], Any]:
    """DDPM's loss in PyTorch: model(x_t, t) -> the noise, of images [B, C, H, W]."""
    import torch

    from jgen import schedules

    alpha_bar = torch.tensor(schedules.linear().alpha_bar, dtype=torch.float32)

    def loss() -> Any:
        t, noise = torch.randint(0, 1000, (len(x0),)), torch.randn_like(x0)
        a = alpha_bar[t][:, None, None, None]
        return ((model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t) - noise) ** 2).mean()

    return loss


def check_size(model: Any, params: Any) -> None:
    """Both networks have as many weights."""
    counts = sum(p.numel() for p in model.parameters()), sum(x.size for x in jax.tree.leaves(params))
    assert counts[0] == counts[1], counts
