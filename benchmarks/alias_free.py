"""StyleGAN3-T's filtered leaky ReLU, generator and training step, and StyleGAN-XL's feature pass, against PyTorch."""

from collections.abc import Callable
from typing import Any

from benchmarks.timing import Row, alternate_apart, faster, missing

Run = Callable[[], Any]
BATCH, IMAGES, WIDTH = 8, 16, 64
"""Images of a training step and of the generator alone; channels."""
SIDE = 224
"""Of the images that the feature network sees."""


def _generator() -> Any:
    from jgen.models.gan.alias_free_layers import Design, alias_free_layers
    from jgen.models.gan.stylegan3 import Generator

    layers = alias_free_layers(
        32, 3, channel_base=32 * WIDTH, channel_max=WIDTH, num_layers=10, num_critical=2, design=Design(margin_size=10)
    )
    return Generator(layers, z_dim=WIDTH, w_dim=WIDTH)


def our_bend() -> Run:
    """A middle layer's filtered leaky ReLU, and its gradient by input and bias."""
    import jax
    import jax.numpy as jnp

    from jgen.nn.filtered_lrelu import filtered_lrelu
    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, layer = make_mesh(), _generator().layers[5]
    side = layer.in_size + layer.kernel - 1
    x = jax.device_put(jax.random.normal(jax.random.key(0), (IMAGES, side, side, WIDTH)), batch_sharding(mesh))
    bias = jax.device_put(jnp.zeros(WIDTH), replicated(mesh))

    def total(x: Any, bias: Any) -> Any:
        y = filtered_lrelu(
            x, bias, layer.up_filter, layer.down_filter, up=layer.up, down=layer.down, padding=layer.padding * 2, clamp=256.0
        )
        return jnp.sum(jnp.square(y))

    run = jax.jit(jax.grad(total, (0, 1)))
    return lambda: jax.block_until_ready(run(x, bias))


def their_bend() -> Run:
    import torch

    from benchmarks import stylegan3_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    layer = stylegan3_torch.LAYERS[5]
    side = layer.in_size + layer.kernel - 1
    up, down = stylegan3_torch.taps(layer.up_filter), stylegan3_torch.taps(layer.down_filter)
    x = torch.randn(IMAGES, WIDTH, side, side, requires_grad=True)
    bias = torch.zeros(WIDTH, requires_grad=True)

    def run() -> None:
        y = stylegan3_torch.filtered_lrelu(x, bias, up, down, layer.up, layer.down, layer.padding)
        torch.autograd.grad(y.square().sum(), (x, bias))

    return run


def our_generator() -> Run:
    import jax
    import jax.numpy as jnp

    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, g = make_mesh(), _generator()
    variables = jax.device_put(jax.jit(g.init)(jax.random.key(0), jnp.zeros((1, WIDTH))), replicated(mesh))
    z = jax.device_put(jax.random.normal(jax.random.key(1), (IMAGES, WIDTH)), batch_sharding(mesh))
    make = jax.jit(g.apply)
    return lambda: jax.block_until_ready(make(variables, z))


def their_generator() -> Run:
    import torch

    from benchmarks import stylegan3_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    g = stylegan3_torch.Generator()
    z = torch.randn(IMAGES, WIDTH)

    def run() -> None:
        with torch.no_grad():
            g(z)

    return run


def our_step() -> Run:
    """A step of each player without R1, with the experiment's stage."""
    from benchmarks.steps import stage_step
    from jgen.config import AugmentConfig, DataConfig, GANConfig, StyleConfig, StyleSampling, TrainConfig
    from jgen.config.alias_free import AliasFreeConfig
    from jgen.config.gan import ArchitectureConfig
    from jgen.recipes.gan.alias_free_stage import AliasFreeRecipe, alias_free_stage

    recipe = AliasFreeRecipe(
        GANConfig(WIDTH, 32 * WIDTH, WIDTH),
        StyleConfig(WIDTH, 2, r1_gamma=0.0, mixing=0.0),
        AliasFreeConfig(layers=10, margin=10),
        ArchitectureConfig(),
        AugmentConfig(),
        DataConfig("cifar10", batch_size=BATCH, shape=(32, 32, 3), num_classes=10),
        StyleSampling(),
    )
    return stage_step(alias_free_stage(recipe, TrainConfig()))


def their_step() -> Run:
    from benchmarks import stylegan3_torch
    from benchmarks.stylegan2_torch import adversarial_step

    return adversarial_step(stylegan3_torch.Generator(), BATCH)


def our_features() -> Run:
    """The four taps, and the gradient by the images, as each update of G takes it."""
    import jax
    import jax.numpy as jnp

    from jgen.models.efficientnet_lite import EfficientNetLite
    from jgen.sharding import batch_sharding, make_mesh, replicated

    mesh, net = make_mesh(), EfficientNetLite(head=False)
    x = jax.device_put(jax.random.normal(jax.random.key(1), (BATCH, SIDE, SIDE, 3)), batch_sharding(mesh))
    variables = jax.device_put(jax.jit(net.init)(jax.random.key(0), x[:1]), replicated(mesh))

    def total(x: Any, variables: Any) -> Any:
        return sum(jnp.sum(jnp.square(tap)) for tap in net.apply(variables, x).taps)  # pyright: ignore

    run = jax.jit(jax.grad(total))
    return lambda: jax.block_until_ready(run(x, variables))


def their_features() -> Run:
    import torch

    from benchmarks import features_torch
    from benchmarks.steps import use_all_cores

    use_all_cores()
    net, x = features_torch.frozen(), torch.randn(BATCH, 3, SIDE, SIDE, requires_grad=True)
    return lambda: torch.autograd.grad(sum(tap.square().sum() for tap in net(x)), x)  # pyright: ignore


def _compared(name: str, ours: Callable[[], Run], theirs: Callable[[], Run], aim: float) -> Row:
    return faster(name, alternate_apart({"jgen": ours, "torch": theirs}, 6, calls=2), aim)


def stylegan3() -> list[Row]:
    """The bend forward and backward, the generator, and a step of both players, config T at 32x32."""
    if why := missing("torch"):
        return [Row("stylegan3", float("nan"), "x", ">= 1.5", None, why)]
    return [
        _compared("stylegan3/filtered_lrelu", our_bend, their_bend, 1.5),
        _compared("stylegan3/generator", our_generator, their_generator, 1.5),
        _compared("stylegan3/step", our_step, their_step, 1.5),
    ]


def efficientnet() -> list[Row]:
    """The feature pass of Projected GAN and StyleGAN-XL at 224x224, and its gradient by the images."""
    if why := missing("torch"):
        return [Row("efficientnet", float("nan"), "x", ">= 0.91", None, why)]
    return [_compared("efficientnet", our_features, their_features, 1 / 1.1)]


BENCHMARKS = {"stylegan3": stylegan3, "efficientnet": efficientnet}
