"""StyleGAN's networks against a port of the official weights' code, and the growth that they share with ProGAN."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen import convert
from jgen.convert import stylegan1 as converter
from jgen.edit import noise
from jgen.errors import UserError
from jgen.models.gan import progan, stylegan1, stylegan2
from jgen.nn.conv import convolve
from jgen.nn.fir import filter2d
from tests.oracle import Oracle, files

oracle = pytest.mark.oracle
SMALL: Any = dict(resolution=16, channel_base=64, channel_max=8)

pytestmark = pytest.mark.slow


def split(lod):
    """(skip, fade) of a level of detail; no fade where it is whole."""
    return int(lod), (lod - int(lod)) or None


def options(o):
    """The constructor's options of a file, without those of its calls."""
    return {name: value for name, value in o.config.items() if name not in ("lods", "trunc_psi", "trunc_layers")}


def labels(o):
    """(labels [B, C],) of a file of a network with classes, else ()."""
    return (jnp.asarray(o["in/c"]),) if "in/c" in o else ()


@oracle
@pytest.mark.parametrize("path", files("stylegan1", "generator"))
def test_generators(path):
    o = Oracle(path)
    net, found = converter.generator(convert.load_weights(path), **options(o))
    params = {"params": found["params"]}
    synth = functools.partial(net.apply, params, method="synthesize")
    psi, layers = o.config.get("trunc_psi"), o.config.get("trunc_layers")
    psi = 1.0 if psi is None else psi

    @jax.jit
    def run(z, label, random):
        w = net.apply(params, z, *label, method="map")
        ws = stylegan2.repeat(w, net.num_ws)
        truncated = stylegan2.truncate(ws, found["w_avg"], psi, layers)
        seen = lambda module, _: isinstance(module, stylegan1.Layer)  # noqa: E731
        img, extra = synth(ws, found["noise"], capture_intermediates=seen, mutable="intermediates")
        lods = {f"img_lod{lod:g}": synth(ws, found["noise"], skip=int(lod), fade=lod % 1) for lod in o.config.get("lods", ())}
        lods = {n: progan.enlarge(x, net.resolution) for n, x in lods.items()}
        pictures = {"img": img, "img_psi": synth(truncated, found["noise"]), "img_random": synth(ws, random), **lods}
        acts = {f"act/{n}": a["__call__"][0] for n, a in extra["intermediates"]["synthesis"].items()}
        return {"w": w, "wp_psi": truncated}, {**pictures, **acts}

    random = {n.removeprefix("in/noise/"): jnp.asarray(o.nhwc(n)) for n in o.names if n.startswith("in/noise/")}
    plain, images = run(jnp.asarray(o["in/z"]), labels(o), random)
    for name, value in plain.items():
        o.check(f"out/{name}", value)
    for name, value in images.items():
        o.check(f"out/{name}", value[:1] if name.startswith("act") else value, image=True)
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("stylegan1", "discriminator"))
def test_discriminators(path):
    o = Oracle(path)
    net, variables = converter.discriminator(convert.load_weights(path), **options(o))

    def judge(x, lod):
        skip, fade = split(lod)
        return net.apply(variables, progan.faded(x, skip), *labels(o), skip=skip, fade=fade)

    @jax.jit
    def run(x):
        logits = {f"logits_lod{lod:g}": judge(x, lod)[:, None] for lod in o.config.get("lods", (0,))}
        return logits, jax.grad(lambda x: jnp.sum(judge(x, 0)))(x)

    logits, by_image = run(jnp.asarray(o.nhwc("in/img")))
    for name, value in logits.items():
        o.check(f"out/{name}", value)
    o.check("out/grad/sum_logits_wrt_img", by_image, image=True)
    o.check_whole()


def tensorflow(o):
    """The weights of a file as they are in TensorFlow: its names, its layout; the labels' matrix has the same in both."""
    to_tf = {4: lambda a: a.transpose(2, 3, 1, 0), 2: lambda a: a.T}
    weights = convert.load_weights(o.path)
    turned = {k: to_tf.get(a.ndim, lambda a: a)(a) if k.endswith(".weight") else a for k, a in weights.items()}
    return {tf: turned[k] for k, tf in o.meta["tf_names"].items()}


@oracle
@pytest.mark.parametrize("path", files("stylegan1", "generator") + files("stylegan1", "discriminator"))
def test_tensorflow_names(path):
    o = Oracle(path)
    kind = path.stem.partition("_")[0]
    read, name_of = getattr(converter, kind), getattr(converter, f"{kind}_name")
    assert {name_of(tf, o.config["resolution"]): tf for tf in o.meta["tf_names"].values()} == o.meta["tf_names"]
    _, ours = read(convert.load_weights(path), **options(o))
    _, theirs = read(tensorflow(o), **options(o))
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


@oracle
@pytest.mark.parametrize("path", files("stylegan1", "generator"))
def test_label_weights(path):
    o = Oracle(path)
    plain = {n: v for n, v in options(o).items() if n != "label_size"}
    size = plain.get("z_space_dim", 512)
    label, wide = np.arange(2.0 * size).reshape(2, size), np.ones((len(o["w/mapping.dense0.weight"]), 2 * size))
    port = convert.load_weights(path) | {"mapping.label_weight": label, "mapping.dense0.weight": wide}
    theirs = tensorflow(o) | {"LabelConcat/weight": label, "G_mapping/Dense0/weight": wide.T}
    theirs.pop("Dense0/weight", None)
    for weights in (port, theirs):
        net, found = converter.generator(weights, label_size=2, **plain)
        np.testing.assert_array_equal(found["params"]["mapping"]["label_weight"], label)
        which = [np.eye(2, dtype=np.float32)[np.full(len(o["in/z"]), i)] for i in (0, 1)]
        w = [net.apply({"params": found["params"]}, o["in/z"], c, method="map") for c in which]
        assert np.abs(w[0] - w[1]).max() > 1e-3


@oracle
@pytest.mark.parametrize("path", files("stylegan1", "generator"))
def test_weights_that_do_not_fit_are_named(path):
    o = Oracle(path)
    weights = convert.load_weights(path)
    del weights["truncation.w_avg"]
    with pytest.raises(UserError, match="missing truncation/w_avg; left over synthesis.new"):
        converter.generator(weights | {"synthesis.new": np.zeros(1)}, **options(o))


def spread(x, kernel):
    """The transposed convolution of stride 2 of x [S, S] with the sum of a kernel's four shifts, one pixel cropped."""
    wide = sum(np.pad(kernel, ((a, 1 - a), (b, 1 - b))) for a in (0, 1) for b in (0, 1))
    out = np.zeros((2 * len(x) + 2,) * 2)
    for i, j in np.ndindex(*x.shape):
        out[2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += x[i, j] * wide
    return out[1:-1, 1:-1]


def test_fused_upsampling_is_the_transposed_convolution():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    given = jnp.asarray(x, jnp.float32)[None, :, :, None], jnp.asarray(kernel, jnp.float32)[:, :, None, None]
    fused = stylegan1.upsampled_conv(*given, fused=True)
    np.testing.assert_allclose(fused[0, :, :, 0], spread(x, kernel), atol=1e-5)
    plain = stylegan1.upsampled_conv(*given, fused=False)
    np.testing.assert_allclose(plain[0, :, :, 0], spread(x, kernel[::-1, ::-1]), atol=1e-5)


def test_pooled_convolution_is_convolution_and_mean():
    rng = np.random.default_rng(0)
    x, kernel = (rng.normal(size=shape).astype(np.float32) for shape in ((2, 6, 6, 3), (3, 3, 3, 4)))
    got, whole = jax.jit(lambda x, k: (progan.pooled_conv(x, k), convolve(x, k, 1, "SAME")))(x, kernel)
    np.testing.assert_allclose(got, np.reshape(whole, (2, 3, 2, 3, 2, 4)).mean((2, 4)), atol=1e-5)


def test_blur_keeps_the_size_and_the_sum():
    x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(16.0)
    np.testing.assert_allclose(filter2d(x, progan.BLUR)[0, 1:4, 1:4, 0], np.outer((1, 2, 1), (1, 2, 1)), atol=1e-6)


GENERATORS = [
    progan.Generator(z_dim=6, c_dim=2, **SMALL),
    stylegan1.Generator(6, 2, 5, mapping_layers=2, mapping_features=7, mapping_lr_mul=1.0, **SMALL),
]
DISCRIMINATORS = [progan.Discriminator(2, **SMALL), stylegan1.Discriminator(2, std_channels=2, **SMALL)]
Z, C = jax.random.normal(jax.random.key(0), (4, 6)), jnp.eye(2)[jnp.array([0, 1, 1, 0])]
PICTURES = jax.random.normal(jax.random.key(1), (4, 16, 16, 3))


@functools.cache
def init(net, skip=0):
    """Random variables, every bias and strength too, made at some skip."""
    inputs = (PICTURES[:, :: 2**skip, :: 2**skip], C) if isinstance(net, progan.Discriminator) else (Z, C)
    shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), *inputs, skip=skip))
    leaves, tree = jax.tree.flatten(shapes)
    rng = np.random.default_rng(0)
    return jax.tree.unflatten(tree, [jnp.asarray(rng.normal(size=s.shape), jnp.float32) for s in leaves])


@functools.cache
def compiled(net, skip):
    """(variables, *inputs, fade) -> output."""
    run = lambda v, *inputs, fade=None: net.apply(v, *inputs, skip=skip, fade=fade)  # noqa: E731
    return jax.jit(run)


def ids(net):
    return type(net).__module__.rsplit(".", 1)[-1]


@pytest.mark.parametrize("net", GENERATORS, ids=ids)
def test_generator_grows_out_of_the_coarser_network(net):
    variables = init(net)
    coarser = compiled(net.clone(resolution=8), 0)(variables, Z, C)
    assert coarser.shape == (4, 8, 8, 3)
    np.testing.assert_allclose(compiled(net, 1)(variables, Z, C, fade=0.0), coarser, atol=1e-5)
    fine = compiled(net, 0)(variables, Z, C)
    fade = jnp.array([0.999999, 0.75, 0.5, 0.25, 0.0])
    steps = np.stack([compiled(net, 0)(variables, Z, C, fade=f) for f in fade])
    np.testing.assert_allclose(steps[0], progan.enlarge(coarser, 16), atol=1e-4)
    np.testing.assert_array_equal(steps[-1], fine)
    moves = np.diff(steps, axis=0)
    np.testing.assert_allclose(moves, np.broadcast_to(moves[:1], moves.shape), atol=1e-4)


@pytest.mark.parametrize("net", DISCRIMINATORS, ids=ids)
def test_discriminator_grows_out_of_the_coarser_one(net):
    variables = init(net)
    half = progan.faded(PICTURES, 1)
    coarser = compiled(net, 1)(variables, half, C)
    steps = np.stack([compiled(net, 0)(variables, PICTURES, C, fade=f) for f in (1.0, 0.9999, 0.0001, 0.0)])
    np.testing.assert_allclose(steps[0], coarser, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(steps[-1], compiled(net, 0)(variables, PICTURES, C), rtol=1e-6)
    np.testing.assert_allclose(steps[1:3], steps[::3], rtol=0.01, atol=0.01)


@pytest.mark.parametrize("net", GENERATORS + DISCRIMINATORS, ids=ids)
def test_all_weights_exist_at_every_skip(net):
    shapes = [jax.tree.map(jnp.shape, init(net, skip)) for skip in (0, 2)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("net", GENERATORS, ids=ids)
def test_generator_obeys_labels_and_shows_four_pixels(net):
    run = compiled(net, 2)
    images = run(init(net), Z, C)
    assert images.shape == (4, 4, 4, 3)
    assert np.abs(images - run(init(net), Z, 1 - C)).max() > 1e-3
    np.testing.assert_array_equal(run(init(net), Z, C, fade=0.0), images)
    with pytest.raises(UserError, match=r"c=None: must be \[B, 2\]"):
        net.apply(init(net), Z)


@pytest.mark.parametrize("net", DISCRIMINATORS, ids=ids)
def test_each_label_chooses_its_logit(net):
    x, run, v = progan.faded(PICTURES, 2), compiled(net, 2), init(net)
    each = [run(v, x, jnp.broadcast_to(jnp.eye(2)[i][None], (4, 2))) for i in (0, 1)]
    np.testing.assert_allclose(run(v, x, C), np.where(C[:, 0] == 1, *each), rtol=1e-5)
    assert np.abs(each[0] - each[1]).max() > 1e-3


@pytest.mark.parametrize("net", DISCRIMINATORS, ids=ids)
def test_a_batch_of_one_image_is_noticed(net):
    x, v, c = progan.faded(PICTURES, 2), init(net), jnp.broadcast_to(C[:1], C.shape)
    same = jnp.broadcast_to(x[:1], x.shape)
    assert abs(float(compiled(net, 2)(v, same, c)[0] - compiled(net, 2)(v, x, c)[0])) > 1e-3
    deaf = compiled(net.clone(group=1), 2)
    v = init(net.clone(group=1))
    np.testing.assert_allclose(deaf(v, same, c)[0], deaf(v, x, c)[0], rtol=1e-5)


def test_real_images_fade_as_the_generated_ones():
    faded = jax.jit(progan.faded, static_argnums=1)
    flat = jnp.full((2, 16, 16, 3), 0.3)
    for skip, fade in ((0, None), (0, 0.4), (1, 0.7), (2, 0.0)):
        np.testing.assert_allclose(faded(flat, skip, fade), np.full((2, 16 >> skip, 16 >> skip, 3), 0.3), rtol=1e-6)
    half, quarter = (np.reshape(PICTURES, (4, n, 16 // n, n, 16 // n, 3)).mean((2, 4)) for n in (8, 4))
    np.testing.assert_allclose(faded(PICTURES, 1), half, atol=1e-6)
    want = 0.25 * half + 0.75 * quarter.repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(faded(PICTURES, 1, 0.75), want, atol=1e-6)
    with pytest.raises(UserError, match="skip=2: must be at least 0, and 8 divide the images' sides .16, 12."):
        progan.faded(PICTURES[:, :, :12], 2, 0.5)


def test_level_of_detail_falls_without_jumps():
    lods = [progan.lod_at(n, 3, fade_images=10, stable_images=30) for n in range(200)]
    assert lods[:31] == [3.0] * 31
    assert lods[35] == 2.5
    assert lods[40:71] == [2.0] * 31
    assert lods[120:] == [0.0] * 80
    assert max(np.abs(np.diff(lods))) == pytest.approx(0.1)
    assert [progan.lod_at(n, 2, 0, 5) for n in (0, 4, 5, 9, 10, 99)] == [2, 2, 1, 1, 0, 0]
    with pytest.raises(UserError, match="fade_images=0, stable_images=0"):
        progan.lod_at(1, 2, 0, 0)


def test_noise_is_of_its_key_and_grows_with_the_network():
    net, keys = GENERATORS[1], jax.random.split(jax.random.key(3), 4)
    planes, fewer = (noise.planes(k, stylegan1.noise_planes(r)) for k, r in ((keys, 16), (keys[1:2], 4)))
    assert {n: p.shape[1] for n, p in planes.items()} == stylegan1.noise_planes(16)
    assert len(planes) == net.num_ws
    np.testing.assert_array_equal(fewer["layer1"][0], planes["layer1"][1])
    run, v = compiled(net, 2), init(net)
    few = {n: p for n, p in planes.items() if n in fewer}
    np.testing.assert_allclose(run(v, Z, C, few), run(v, Z, C, planes), atol=1e-5)
    assert np.abs(run(v, Z, C, few) - run(v, Z, C)).max() > 1e-3
    with pytest.raises(UserError, match="noise\\['layer9'\\]: no such layer"):
        net.apply(v, Z, C, {"layer9": planes["layer0"]})


def test_wrong_arguments_are_named():
    net, critic = GENERATORS[0], DISCRIMINATORS[0]
    for skip in (-1, 3):
        with pytest.raises(UserError, match=f"skip={skip}: must be from 0 to 2"):
            net.apply(init(net), Z, C, skip=skip)
    with pytest.raises(UserError, match=r"must be \[B, 8, 8, 3\]"):
        critic.apply(init(critic), PICTURES, C, skip=1)
    with pytest.raises(UserError, match="side=12: must be a multiple of the images' 8 pixels"):
        progan.enlarge(PICTURES[:, :8, :8], 12)
    with pytest.raises(UserError, match=r"c=\[4, 3\]: must be \[B, 2\]"):
        progan.check_label(jnp.zeros((4, 3)), 2)
    with pytest.raises(UserError, match=r"z of shape \(4, 2\): must be \[B, 6\]"):
        net.apply(init(net), C, C)
