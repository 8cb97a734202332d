"""The U-Net of the comparisons with diffusers: 6.47 M parameters, 32x32 grey, the same layers in both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jgen import schedules
from jgen.models.unet import UNet
from jgen.objectives import diffusion
from jgen.train import Phase, init_state, make_step
from jgen.train.sharding import batch_sharding, jit_once, make_mesh, replicated

SIZE, CHANNELS = 32, (64, 128, 128)


def network(head: int) -> UNet:
    """Attention at 8x8 alone, two blocks a level."""
    mult = tuple(c // CHANNELS[0] for c in CHANNELS)
    return UNet(channels=CHANNELS[0], out_channels=1, channel_mult=mult, attention_resolutions=(4,), head_channels=head)


def ours(head: int, batch: int) -> tuple[Any, Any, Any]:
    """(train step as a blocking call, network, params) on all devices of this machine."""
    net, mesh = network(head), make_mesh()
    optimizers = {"net": optax.adam(1e-4)}
    loss = diffusion.simple(lambda p, x, t, label, **kw: net.apply({"params": p}, x, t, label, **kw), schedules.linear())

    def create(key: jax.Array) -> Any:
        return init_state({"net": net.init(key, jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros(1))["params"]}, {}, optimizers)

    state = [jit_once(create, out_shardings=replicated(mesh))(jax.random.key(0))]
    step = jax.jit(make_step([Phase("net", loss)], optimizers), donate_argnums=0)
    images = np.random.default_rng(0).normal(size=(batch, SIZE, SIZE, 1)).astype(np.float32)
    data = {"image": jax.device_put(images, batch_sharding(mesh))}
    params = jax.tree.map(jnp.copy, state[0].params["net"])

    def run() -> None:
        state[0], metrics = step(state[0], jax.random.key(0), data)
        jax.block_until_ready((state[0], metrics))

    return run, net, params


def theirs(head: int) -> Any:
    """diffusers' UNet2DModel of the same layers; its parameter count is checked against ours."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    torch.set_num_threads(jax.device_count() if jax.default_backend() == "cpu" else torch.get_num_threads())
    model = UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=head,
    )  # fmt: skip
    shapes = jax.eval_shape(network(head).init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros(1))
    counts = sum(p.numel() for p in model.parameters()), sum(int(np.prod(s.shape)) for s in jax.tree.leaves(shapes))
    assert counts[0] == counts[1], counts
    return model


def their_step(model: Any, batch: int, channels_last: bool = False) -> Any:
    """A training step of it in PyTorch, with Adam and the simple loss."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model.to(memory_format=layout)
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    alpha_bar = torch.tensor(schedules.linear().alpha_bar, dtype=torch.float32)
    x0 = torch.randn(batch, 1, SIZE, SIZE).to(memory_format=layout)

    def run() -> None:
        t, noise = torch.randint(0, 1000, (batch,)), torch.randn_like(x0)
        a = alpha_bar[t][:, None, None, None]
        loss = ((model(a.sqrt() * x0 + (1 - a).sqrt() * noise, t).sample - noise) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return run
