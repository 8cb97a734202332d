"""DeiT and the maps of its tokens against a second reading of timm's and StyleGAN-XL's code, in NumPy."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.convert import feature_nets, projected_gan
from jgen.errors import UserError
from jgen.models.deit import DeiT, TokenMaps, normalized

pytestmark = pytest.mark.slow
WIDTH, LAYERS, GRID, HEADS = 128, 4, 2, 2
erf = np.vectorize(math.erf)


def official(rng):
    """A tiny distilled DeiT by timm's names."""
    shapes = {
        "cls_token": (1, 1, WIDTH), "dist_token": (1, 1, WIDTH), "pos_embed": (1, 2 + GRID**2, WIDTH),
        "patch_embed.proj.weight": (WIDTH, 3, 16, 16), "patch_embed.proj.bias": (WIDTH,), "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,), "head.weight": (5, WIDTH), "head.bias": (5,), "head_dist.weight": (5, WIDTH),
        "head_dist.bias": (5,),
    }  # fmt: skip
    for i in range(LAYERS):
        layers = {"attn.qkv": (3 * WIDTH, WIDTH), "attn.proj": (WIDTH, WIDTH), "mlp.fc1": (4 * WIDTH, WIDTH),
                  "mlp.fc2": (WIDTH, 4 * WIDTH), "norm1": (WIDTH,), "norm2": (WIDTH,)}  # fmt: skip
        shapes |= {f"blocks.{i}.{name}.weight": shape for name, shape in layers.items()}
        shapes |= {f"blocks.{i}.{name}.bias": shape[:1] for name, shape in layers.items()}
    return {name: np.float32(rng.normal(size=shape) * (np.prod(shape[1:]) or 1) ** -0.5) for name, shape in shapes.items()}


def reference(weights, x, positions):
    """(patch tokens after every block, logits) of images [B, S, S, 3]."""
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    side = x.shape[1] // 16

    def dense(name, h):
        return h @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    def norm(name, h):
        h = (h - h.mean(-1, keepdims=True)) / np.sqrt(h.var(-1, keepdims=True) + 1e-6)
        return h * w[f"{name}.weight"] + w[f"{name}.bias"]

    patches = x.reshape(len(x), side, 16, side, 16, 3).transpose(0, 1, 3, 5, 2, 4).reshape(len(x), side**2, -1)
    h = patches @ w["patch_embed.proj.weight"].reshape(WIDTH, -1).T + w["patch_embed.proj.bias"]
    tokens = [np.broadcast_to(w[name], (len(x), 1, WIDTH)) for name in ("cls_token", "dist_token")]
    h = np.concatenate([*tokens, h], 1) + positions
    taps = []
    for i in range(LAYERS):
        qkv = dense(f"blocks.{i}.attn.qkv", norm(f"blocks.{i}.norm1", h)).reshape(len(x), -1, 3, HEADS, WIDTH // HEADS)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)
        scores = q @ k.transpose(0, 1, 3, 2) * (WIDTH // HEADS) ** -0.5
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = (scores / scores.sum(-1, keepdims=True) @ v).transpose(0, 2, 1, 3).reshape(h.shape)
        h = h + dense(f"blocks.{i}.attn.proj", mixed)
        inner = dense(f"blocks.{i}.mlp.fc1", norm(f"blocks.{i}.norm2", h))
        h = h + dense(f"blocks.{i}.mlp.fc2", 0.5 * inner * (1 + erf(inner / np.sqrt(2))))
        taps.append(h[:, 2:].reshape(len(x), side, side, WIDTH))
    h = norm("norm", h)
    return taps, (dense("head", h[:, 0]) + dense("head_dist", h[:, 1])) / 2


def test_the_base_size_has_as_many_parameters_as_published():
    made = jax.eval_shape(lambda: DeiT().init(jax.random.key(0), jnp.zeros((1, 224, 224, 3))))
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == 87_338_192  # "87 M"


@pytest.mark.parametrize("side", [GRID, 2 * GRID])
def test_tokens_and_logits(side):
    rng = np.random.default_rng(0)
    weights, x = official(rng), rng.normal(size=(2, 16 * side, 16 * side, 3))
    positions = weights["pos_embed"].astype(np.float64)
    if side != GRID:  # bilinear, from the centres of pixels
        up = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
        grid = np.einsum("yi,xj,ijc->yxc", up, up, positions[0, 2:].reshape(GRID, GRID, WIDTH)).reshape(1, -1, WIDTH)
        positions = np.concatenate([positions[:, :2], grid], 1)
    taps, logits = reference(weights, x, positions)
    net, variables = feature_nets.deit(weights)
    found = jax.jit(net.apply)(variables, jnp.asarray(x, jnp.float32))
    for one, other in zip(found.taps, taps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max())
    np.testing.assert_allclose(found.logits, logits, atol=1e-4)
    short, kept = feature_nets.deit(weights, head=False)
    assert set(variables["params"]) - set(kept["params"]) == {"norm", "head", "head_dist"}
    assert short.apply(kept, jnp.zeros((1, 32, 32, 3))).logits.shape == (1, 0)


def test_maps_of_tokens_are_the_authors():
    rng = np.random.default_rng(0)
    c, grids = 16, [rng.normal(size=(2, 2, 2, 16)) for _ in range(4)]
    sizes = {"layer1.3": (2, c, 1, 1), "layer2.3": (4, c, 1, 1), "layer3.3": (8, c, 1, 1), "layer4.3": (c, c, 1, 1),
             "layer1.4": (2, 2, 4, 4), "layer2.4": (4, 4, 2, 2), "layer4.4": (c, c, 3, 3)}  # fmt: skip
    weights = {f"{name}.weight": np.float32(rng.normal(size=size)) for name, size in sizes.items()}
    weights |= {f"{name}.bias": np.float32(rng.normal(size=size[0])) for name, size in sizes.items()}
    w = {name: array.astype(np.float64) for name, array in weights.items()}
    expected = []
    for i, grid in enumerate(grids):
        h = grid @ w[f"layer{i + 1}.3.weight"][:, :, 0, 0].T + w[f"layer{i + 1}.3.bias"]
        if i < 2:
            kernel, s = w[f"layer{i + 1}.4.weight"], (4, 2)[i]
            out = np.zeros((2, 2 * s, 2 * s, h.shape[-1])) + w[f"layer{i + 1}.4.bias"]
            for y in range(2):
                for x in range(2):
                    out[:, s * y : s * y + s, s * x : s * x + s] += np.einsum("bi,iouv->buvo", h[:, y, x], kernel)
            h = out
        if i == 3:  # the one output of a 3x3 window around pixel (0, 0), whose upper and left pixels are zeros
            h = np.einsum("byxi,oiyx->bo", h, w["layer4.4.weight"][:, :, 1:, 1:])[:, None, None] + w["layer4.4.bias"]
        expected.append(h)
    net, variables = projected_gan.token_maps({**weights, "model.cls_token": np.zeros((1, 1, c))})
    found = net.apply(variables, [jnp.asarray(grid, jnp.float32) for grid in grids])
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_the_random_layers_begin_within_pytorchs_bounds():
    params = TokenMaps().init(jax.random.key(0), [jnp.zeros((1, 2, 2, 64))] * 4)["params"]
    assert float(jnp.max(jnp.abs(params["layer0_up_kernel"]))) <= (8 * 16) ** -0.5  # outputs times 4x4 taps
    assert float(jnp.max(jnp.abs(params["layer3_down_bias"]))) <= (9 * 64) ** -0.5
    assert float(jnp.std(params["layer0_up_kernel"])) > 0.5 * (8 * 16) ** -0.5


def test_images_are_normalised_by_imagenets_colours():
    grey = normalized(jnp.zeros((1, 1, 1, 3)))
    np.testing.assert_allclose(grey[0, 0, 0], (0.5 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5)


def test_other_weights_are_refused():
    weights = official(np.random.default_rng(0))
    with pytest.raises(UserError, match="missing dist_token of a distilled DeiT"):
        feature_nets.deit({name: array for name, array in weights.items() if name != "dist_token"})
    with pytest.raises(UserError, match="left over blocks.0.attn.rel"):
        feature_nets.deit(weights | {"blocks.0.attn.rel": np.zeros(1)})
    with pytest.raises(UserError, match="missing .*layer2/kernel"):
        projected_gan.token_maps({"layer3.3.bias": np.zeros(384)})
