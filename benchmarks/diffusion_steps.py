"""Training steps of diffusion's networks against their PyTorch originals or ports, each side in a process of its own."""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.timing import Row, alternate_apart, details, missing, ratio

BATCH, SIDE = 32, 32
TOKENS, WIDTH = 16, 64
"""Tokens of a caption, and their width."""
Prepare = Callable[[], Callable[[], Any]]


def compared(name: str, ours: Prepare, theirs: dict[str, Prepare], rounds: int = 4) -> list[Row]:
    """A row a peer; the sides take turns."""
    times = alternate_apart({"jgen": ours, **theirs}, rounds)
    detail = details(times)
    values = {peer: ratio(times, peer, "jgen") for peer in theirs}
    return [Row(f"{name}/{peer}", value, "x", ">= 1.0", value >= 1, detail) for peer, value in values.items()]


def by_layout(theirs: Callable[[bool], Callable[[], Any]]) -> dict[str, Prepare]:
    """PyTorch's side with images channel by channel, and channels last."""
    return {"torch": partial(theirs, False), "torch-cl": partial(theirs, True)}


def pictures(channels_last: bool) -> Any:
    """Noise as PyTorch's images [B, C, H, W]."""
    import torch

    kind = torch.channels_last if channels_last else torch.contiguous_format
    return torch.randn(BATCH, 3, SIDE, SIDE).contiguous(memory_format=kind)


def batch() -> dict[str, Any]:
    """Noise as jgen's, with every condition of a network."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.normal(size=(BATCH, SIDE, SIDE, 3)).astype(np.float32)
    captions = random.normal(size=(BATCH, TOKENS, WIDTH)).astype(np.float32)
    return {"image": images, "label": np.arange(BATCH) % 10, "caption": captions}


def _moved(model: Any, like: Any) -> Any:
    import torch

    last = like.is_contiguous(memory_format=torch.channels_last)
    return model.to(memory_format=torch.channels_last if last else torch.contiguous_format)


def dit() -> Any:
    from jgen.models.dit import DiT

    return DiT(3, 192, 12, 3, 4, 10, own_embedders=True)


def our_dit() -> Any:
    import jax.numpy as jnp

    from benchmarks.steps import our_step
    from jgen import schedules
    from jgen.objectives import diffusion
    from jgen.objectives.conditioning import by_label

    net = dit()
    loss = diffusion.simple(
        lambda p, x, t, c, **kw: net.apply({"params": p}, x, t, c.label), schedules.linear(), conditioning=by_label(0)
    )
    return our_step(net, loss, batch(), jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros(1), jnp.zeros(1, jnp.int32))[0]


def their_dit() -> Any:
    import torch
    from diffusers import DiTTransformer2DModel

    from benchmarks.steps import simple_loss, their_step

    model = DiTTransformer2DModel(
        num_attention_heads=3, attention_head_dim=64, in_channels=3, out_channels=3, num_layers=12,
        sample_size=SIDE, patch_size=4, num_embeds_ada_norm=10,
    )  # fmt: skip
    x0, label = pictures(False), torch.arange(BATCH) % 10
    return their_step(model, simple_loss(lambda x, t: model(x, timestep=t, class_labels=label).sample, x0))


def dit_step() -> list[Row]:
    """A training step of a DiT (12 blocks of 192, 32x32 images in patches of 4) against diffusers' port of it."""
    if why := missing("torch", "diffusers"):
        return [Row("dit_step", float("nan"), "x", ">= 1.0", None, why)]
    return compared("dit_step", our_dit, {"torch": their_dit})


SHARED: dict[str, Any] = dict(channel_mult=(1, 2, 2), num_blocks=2, dropout=0.0)
NCSNPP: dict[str, Any] = dict(channel_mult_noise=2)
EDM = {
    "DDPM++": ("SongUNet", {}, {}),
    "NCSN++": (
        "SongUNet",
        dict(embedding="fourier", encoder="residual", taps=(1, 3, 3, 1), **NCSNPP),
        dict(embedding_type="fourier", encoder_type="residual", resample_filter=[1, 3, 3, 1], **NCSNPP),
    ),
    "ADM": ("DhariwalUNet", {}, {}),
}
"""By name: the class in both, and its settings in jgen and in EDM's code."""


def edm(name: str) -> Any:
    from jgen.models import edm

    kind, own, _ = EDM[name]
    return getattr(edm, kind)(3, 64, attention_resolutions=(8,), **SHARED, **own)


def our_edm(name: str) -> Any:
    import jax.numpy as jnp

    from benchmarks.steps import our_step
    from jgen.objectives import edm as form

    net = edm(name)
    loss = form.denoising(lambda p, x, noise, _, **kw: net.apply({"params": p}, x, noise), form.edm(), form.edm_levels())
    return our_step(net, loss, batch(), jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros(1))[0]


def their_edm(name: str, channels_last: bool) -> Any:
    import jax
    import jax.numpy as jnp
    import torch
    from physicsnemo.models import diffusion_unets

    from benchmarks.steps import check_size, their_step

    kind, _, own = EDM[name]
    x0 = pictures(channels_last)
    model = _moved(getattr(diffusion_unets, kind)(SIDE, 3, 3, model_channels=64, attn_resolutions=[8], **SHARED, **own), x0)
    shapes = jax.eval_shape(edm(name).init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros(1))["params"]
    shapes.pop("freqs", None)  # of the Fourier embedding, which are not trained: a buffer there
    check_size(model, shapes)

    def loss() -> Any:
        """EDM's (equations 2, 7 and 8)."""
        sigma = torch.exp(torch.randn(len(x0), 1, 1, 1) * 1.2 - 1.2)
        total = sigma**2 + 0.25
        x = x0 + sigma * torch.randn_like(x0)
        out = model(x / total.sqrt(), sigma.log().flatten() / 4, None)
        denoised = 0.25 / total * x + sigma * 0.5 / total.sqrt() * out
        return (total / (0.5 * sigma) ** 2 * (denoised - x0) ** 2).mean()

    return their_step(model, loss)


def edm_step() -> list[Row]:
    """A training step of EDM's networks (32 images of 32x32) against their authors' own, which physicsnemo carries."""
    if why := missing("torch", "physicsnemo", install="nvidia-physicsnemo"):
        return [Row("edm_step", float("nan"), "x", ">= 1.0", None, why)]
    return [
        row for name in EDM for row in compared(f"edm_step/{name}", partial(our_edm, name), by_layout(partial(their_edm, name)))
    ]


def text_unet() -> Any:
    from jgen.models.unet import UNet

    return UNet(
        64, 3, channel_mult=(1, 2, 2), attention_resolutions=(2, 4), num_heads=4, head_channels=None, transformer_depth=1
    )  # fmt: skip


def our_text_unet() -> Any:
    import jax.numpy as jnp

    from benchmarks.steps import our_step
    from jgen import schedules
    from jgen.objectives import diffusion
    from jgen.objectives.conditioning import by_caption

    net, data = text_unet(), batch()

    def apply(p: Any, x: Any, t: Any, condition: Any, **_: Any) -> Any:
        return net.apply({"params": p}, x, t, context=condition.caption)

    loss = diffusion.simple(apply, schedules.linear(), conditioning=by_caption())
    context = jnp.zeros((1, TOKENS, WIDTH))

    class WithContext:
        """The network as `our_step` initialises one, its context by name."""

        def init(self, key: Any, x: Any, t: Any) -> Any:
            return net.init(key, x, t, context=context)

    return our_step(WithContext(), loss, data, jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros(1))[0]


def their_text_unet(channels_last: bool) -> Any:
    import jax
    import jax.numpy as jnp
    import torch
    from diffusers import UNet2DConditionModel

    from benchmarks.steps import check_size, simple_loss, their_step

    x0, captions = pictures(channels_last), torch.randn(BATCH, TOKENS, WIDTH)
    model = _moved(UNet2DConditionModel(
        sample_size=SIDE, in_channels=3, out_channels=3, layers_per_block=2, block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH, attention_head_dim=4,
    ), x0)  # fmt: skip
    context = jnp.zeros((1, TOKENS, WIDTH))
    init = partial(text_unet().init, context=context)
    check_size(model, jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3)), jnp.zeros(1)))
    return their_step(model, simple_loss(lambda x, t: model(x, t, captions).sample, x0))


def text_unet_step() -> list[Row]:
    """A training step of latent diffusion's U-Net of captions (32 images of 32x32, 16 tokens) against diffusers' port of it."""
    if why := missing("torch", "diffusers"):
        return [Row("text_unet_step", float("nan"), "x", ">= 1.0", None, why)]
    return compared("text_unet_step", our_text_unet, by_layout(their_text_unet))


def first_stage() -> Any:
    from jgen.models.autoencoder import AutoencoderKL

    return AutoencoderKL(channels=64, channel_mult=(1, 2, 2), num_res_blocks=2)


def our_first_stage() -> Any:
    import jax
    import jax.numpy as jnp

    from benchmarks.steps import our_step
    from jgen.objectives import first_stage as bottleneck

    net = first_stage()

    def loss(params: Any, extra: Any, key: Any, data: Any) -> Any:
        x, variables = data["image"], {"params": params["net"]}
        mean, log_variance = net.apply(variables, x, method="encode")  # pyright: ignore[reportAssignmentType]
        z = bottleneck.latents(mean, log_variance, jax.random.normal(key, mean.shape))
        out = net.apply(variables, z, method="decode")
        kl = jnp.mean(bottleneck.kl(mean, log_variance))
        return bottleneck.kl_nll(bottleneck.reconstruction(x, out)) + 1e-6 * kl, (extra, {})

    return our_step(net, loss, batch(), jnp.zeros((1, SIDE, SIDE, 3)))[0]


def their_first_stage(channels_last: bool) -> Any:
    import jax
    import jax.numpy as jnp
    from diffusers import AutoencoderKL

    from benchmarks.steps import check_size, their_step

    x0 = pictures(channels_last)
    model = _moved(AutoencoderKL(
        in_channels=3, out_channels=3, block_out_channels=(64, 128, 128), layers_per_block=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 3, up_block_types=("UpDecoderBlock2D",) * 3,
    ), x0)  # fmt: skip
    check_size(model, jax.eval_shape(first_stage().init, jax.random.key(0), jnp.zeros((1, SIDE, SIDE, 3))))

    def loss() -> Any:
        law = model.encode(x0).latent_dist
        out = model.decode(law.sample()).sample
        return (x0 - out).abs().sum() / len(x0) + 1e-6 * law.kl().mean()

    return their_step(model, loss)


def first_stage_step() -> list[Row]:
    """A training step of a KL autoencoder (32 images of 32x32, latents of 8x8) against diffusers' port of it."""
    if why := missing("torch", "diffusers"):
        return [Row("first_stage_step", float("nan"), "x", ">= 1.0", None, why)]
    return compared("first_stage_step", our_first_stage, by_layout(their_first_stage))


BENCHMARKS = {
    "dit_step": dit_step,
    "edm_step": edm_step,
    "text_unet_step": text_unet_step,
    "first_stage_step": first_stage_step,
}
