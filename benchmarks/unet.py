"""The U-Net of the comparisons with diffusers: 6.47 M parameters, 32x32 grey, the same layers in both."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.steps import check_size, our_step, simple_loss, their_step, use_all_cores
from jgen import schedules
from jgen.models.unet import UNet
from jgen.objectives import diffusion

SIZE, CHANNELS = 32, (64, 128, 128)


def network(head: int) -> UNet:
    """Attention at 8x8 alone, two blocks a level."""
    mult = tuple(c // CHANNELS[0] for c in CHANNELS)
    return UNet(channels=CHANNELS[0], out_channels=1, channel_mult=mult, attention_resolutions=(4,), head_channels=head)


def ours(head: int, batch: int) -> tuple[Any, Any, Any]:
    """(train step as a blocking call, network, params) on all devices of this machine."""
    net = network(head)
    loss = diffusion.simple(lambda p, x, t, condition, **kw: net.apply({"params": p}, x, t, **kw), schedules.linear())
    images = np.random.default_rng(0).normal(size=(batch, SIZE, SIZE, 1)).astype(np.float32)
    run, params = our_step(net, loss, {"image": images}, jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros(1))
    return run, net, params


def theirs(head: int) -> Any:
    """diffusers' UNet2DModel of the same layers; its parameter count is checked against ours."""
    import torch
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    use_all_cores()
    model = UNet2DModel(
        sample_size=SIZE, in_channels=1, out_channels=1, layers_per_block=2, block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"), attention_head_dim=head,
    )  # fmt: skip
    check_size(model, jax.eval_shape(network(head).init, jax.random.key(0), jnp.zeros((1, SIZE, SIZE, 1)), jnp.zeros(1)))
    return model


def our_step_of(head: int, batch: int) -> Any:
    return ours(head, batch)[0]


def their_step_of(head: int, batch: int, channels_last: bool = False) -> Any:
    """The same in PyTorch, with Adam and the simple loss."""
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = theirs(head).to(memory_format=layout)
    x0 = torch.randn(batch, 1, SIZE, SIZE).to(memory_format=layout)
    return their_step(model, simple_loss(lambda x, t: model(x, t).sample, x0))
