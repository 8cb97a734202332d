"""DiffAugment, consistency regularisation's augmentations and ADA against their authors' code; and what needs no oracle."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.nn.warp import SYM6
from jgen.objectives import ada, diffaug
from tests.oracle import Oracle, files

oracle = pytest.mark.oracle
augmented = jax.jit(ada.augment, static_argnames="config")

pytestmark = pytest.mark.slow


def picture(n=3, size=12, channels=3, seed=0):
    return jnp.asarray(np.random.default_rng(seed).uniform(-1, 1, (n, size, size, channels)), jnp.float32)


@oracle
@pytest.mark.parametrize("path", files("gan_losses", "diffaug_cr"))
def test_diffaug_and_consistency(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        config, d = o.config, {n.removeprefix("in/"): jnp.asarray(o[n]) for n in o.names if n.startswith("in/")}
        x, cotangent = (jnp.asarray(o.nhwc(f"in/{name}")) for name in ("x", "cotangent"))

        steps = {
            "brightness": lambda x: diffaug.brightness(x, d["u_brightness"]),
            "saturation": lambda x: diffaug.saturation(x, d["u_saturation"]),
            "contrast": lambda x: diffaug.contrast(x, d["u_contrast"]),
            "translation": lambda x: diffaug.translation(x, d["shift_rows"], d["shift_cols"], config["translation_ratio"]),
            "cutout": lambda x: diffaug.cutout(x, d["cutout_rows"], d["cutout_cols"], config["cutout_ratio"]),
            "flip": lambda x: diffaug.flip(x, d["cr_flip_uniform"]),
            "reflect": lambda x: diffaug.translation_reflect(x, d["cr_shift_rows"], d["cr_shift_cols"], config["cr_ratio"]),
        }

        def parts(name):
            """The steps of a case, which its name lists; of consistency ("cr") a translation reflects."""
            name = name.replace("color", "brightness_saturation_contrast").replace("translation_reflect", "reflect")
            first, *rest = name.split("_")
            return [part.replace("translation", "reflect") for part in rest] if first == "cr" else [first, *rest]

        def case(name):
            return lambda x: functools.reduce(lambda x, step: steps[step](x), parts(name), x)

        for name in (name for name in o.under("out/") if not name.startswith("grad/")):
            y, pull = jax.vjp(case(name), x)
            o.check(f"out/{name}", y, image=True)
            if f"out/grad/{name}" in o:
                o.check(f"out/grad/{name}", pull(cotangent)[0], image=True)
        o.check_whole()


def stored(o, case):
    """The draws of a case, squeezed, its noise NHWC."""
    draws = {n.removeprefix(f"in/{case}/"): o[n] for n in o.names if n.startswith(f"in/{case}/")}
    pairs = ("xint_value", "xfrac_value", "cutout_center")
    draws = {n: v.reshape(-1, 2) if n in pairs else v if n == "noise_image" else v.reshape(-1) for n, v in draws.items()}
    return {n: jnp.asarray(np.moveaxis(v, 1, -1) if n == "noise_image" else v) for n, v in draws.items()}


def percentile(u, config, shape, noise=None):
    """Draws for images [B, H, W, C] that are all on and at this percentile; the second rotation is none."""
    draws = ada.draw(jax.random.key(0), shape[0], shape[1:], config)
    normal = float(jax.scipy.special.erfinv(2.0 * u - 1))  # the reference leaves out the root of 2
    for name in draws:
        transform = name.removesuffix("_value").removesuffix("_center")
        flat = 0.0 if name.endswith("_gate") else 0.5 if transform == "rotate_post" else u
        flat = normal if not name.endswith("_gate") and transform not in ada._UNIFORM else flat
        draws[name] = jnp.full(draws[name].shape, flat)
    if noise is not None:
        draws["noise_sigma_value"] = jnp.full(shape[0], float(jax.scipy.special.erfinv(float(u))))
        draws["noise_image"] = noise
    return draws


def cases_of(paths):
    """Parameters for a test: every case of every file."""
    opened = [pytest.param(None, "", marks=p.marks, id=p.id) for p in paths if p.values[0] is None]
    found = [p.values[0] for p in paths if p.values[0] is not None]
    return opened + [pytest.param(path, case, id=f"{path.stem}-{case}") for path in found for case in Oracle(path).config]


@oracle
@pytest.mark.parametrize("path,case", cases_of(files("stylegan2", "ada_augment")))
def test_ada_values_and_gradients(path, case):
    o = Oracle(path)
    settings = o.config[case]
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in settings["kwargs"].items()}
    config, kind = ada.ADA(**given), {3: "rgb", 1: "grey"}[settings["channels"]]
    x, cotangent = (jnp.asarray(o.nhwc(f"in/{name}_{kind}")) for name in ("images", "cotangent"))
    draws = stored(o, case)
    if settings.get("debug_percentile") is not None:
        draws = percentile(settings["debug_percentile"], config, x.shape, draws.get("noise_image"))
    assert set(draws) == set(ada.draw(jax.random.key(0), len(x), x.shape[1:], config))

    @jax.jit
    def both(x, p):
        y, pull = jax.vjp(lambda x: ada.augment(x, draws, p, config), x)
        return y, pull(cotangent)[0]

    y, gradient = both(x, settings["p"])
    o.check(f"out/{case}/y", y, image=True)
    o.check(f"out/{case}/grad_images", gradient, image=True)
    assert {"y"} <= set(o.under(f"out/{case}/")) <= {"y", "grad_images"}


@oracle
@pytest.mark.parametrize("path", files("stylegan2", "ada_augment"))
def test_ada_filters(path):
    o = Oracle(path)
    o.check("out/Hz_geom", SYM6, 1e-6)
    o.check("out/Hz_fbank", ada._bands(), 1e-6)
    assert np.allclose(ada._bands().sum(0), np.eye(43)[21], atol=1e-12)
    o.check_whole(*(f"out/{case}/*" for case in o.config))  # each case by itself, above


@oracle
@pytest.mark.parametrize("path", files("stylegan2", "training_arithmetic"))
def test_ada_controller(path):
    with jax.enable_x64(True):
        o = Oracle(path)
        c, p, seen = o.config["ada"], o.config["ada"]["p0"], []
        for sign in o["in/ada/mean_sign"]:
            p = ada.adjust_p(p, sign, c["batch_size"], c["ada_interval"], c["ada_kimg"], c["ada_target"])
            seen.append(p)
        o.check("out/ada/p", jnp.stack(seen))
        o.check_whole("out/lazy/*", "out/adam/*", "out/ema/*")  # the optimizer's, of test_oracle_gan


@pytest.mark.parametrize("channels", (1, 3))
def test_ada_does_nothing_where_every_gate_fails(channels):
    row, column = np.meshgrid(np.linspace(-1, 1, 16), np.linspace(-1, 1, 20), indexing="ij")
    x = jnp.asarray(np.stack([np.cos(2 * row) * column] * channels, -1)[None].repeat(2, 0), jnp.float32)
    draws = ada.draw(jax.random.key(0), 2, x.shape[1:], ada.BGCFNC)
    assert np.max(np.abs(augmented(x, draws, 0.0, ada.BGCFNC) - x)) < 0.01  # resampled, so not quite the same
    rest = ada.ADA(brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1, imgfilter=1, noise=1, cutout=1)
    np.testing.assert_allclose(augmented(x, draws, 0.0, rest), x, atol=1e-5)
    assert ada.augment(x, {}, 1.0, ada.ADA()) is x


def smooth(height=16, width=24):
    """One image whose resampling costs little, without any symmetry."""
    row, column = np.meshgrid(np.linspace(0, 1, height), np.linspace(0, 1, width), indexing="ij")
    return jnp.asarray((np.sin(3 * row + 1) * (1 + column) + 0.3 * column**2)[None, :, :, None], jnp.float32)


def certain(**values):
    """Draws for one image that are sure to be on."""
    gates = {f"{name.removesuffix('_value')}_gate": jnp.zeros(1) for name in values}
    return {name: jnp.asarray(v, jnp.float32)[None] for name, v in values.items()} | gates


def test_ada_blits_are_flips_turns_and_shifts():
    x, square = smooth(), smooth()[:, :, :16]
    inner = np.s_[:, 3:-3, 3:-3]
    # the filter is lopsided, so what is turned over is off by a fraction of a pixel; a whole one is 0.2 here
    y = augmented(x, certain(xflip_value=0.7), 1.0, ada.ADA(xflip=1))
    np.testing.assert_allclose(y[inner], x[:, :, ::-1][inner], atol=0.05)
    y = augmented(x, certain(rotate90_value=0.6), 1.0, ada.ADA(rotate90=1))
    np.testing.assert_allclose(y[inner], x[:, ::-1, ::-1][inner], atol=0.05)
    y = augmented(square, certain(rotate90_value=0.3), 1.0, ada.ADA(rotate90=1))
    np.testing.assert_allclose(y[inner], jnp.rot90(square, 1, (1, 2))[inner], atol=0.05)  # counter-clockwise
    y = augmented(x, certain(xint_value=[1.0, 0.4]), 1.0, ada.ADA(xint=1))  # 3 of 24 columns; 0.4 of 16 rows, so none
    np.testing.assert_allclose(y[:, 3:-3, 6:-3], x[:, 3:-3, 3:-6], atol=0.01)
    y = augmented(x, certain(xint_value=[0.5, 0.0]), 1.0, ada.ADA(xint=1))  # up by 2 rows; below them their reflection
    np.testing.assert_allclose(y[:, 3:-3], jnp.pad(x, ((0, 0), (0, 2), (0, 0), (0, 0)), mode="reflect")[:, 5:-3], atol=0.02)


def test_ada_enlarges_and_moves_towards_the_right():
    x = jnp.zeros((1, 17, 17, 1)).at[0, 8, 8].set(1.0)
    spread = augmented(x, certain(scale_value=5.0), 1.0, ada.ADA(scale=1))  # 2^(5 * 0.2): twice the size
    assert abs(float(jnp.sum(spread)) - 4) < 0.1
    moved = augmented(x, certain(xfrac_value=[1.0, 0.0]), 1.0, ada.ADA(xfrac=1, xfrac_std=2.5 / 17))
    center = jnp.sum(moved * jnp.arange(17.0)[None, None, :, None]) / jnp.sum(moved)
    assert abs(float(center) - 10.5) < 0.05


def test_ada_reflects_once_and_is_zero_further_out():
    seen = augmented(jnp.ones((1, 48, 48, 1)), certain(scale_value=-15.0), 1.0, ada.ADA(scale=1))[0, :, :, 0]  # an eighth
    near = np.maximum(*np.abs(np.mgrid[:48, :48] - 23.5))  # the image reaches to 3, its reflections to 9
    np.testing.assert_allclose(seen[near < 6], 1, atol=1e-3)
    np.testing.assert_allclose(seen[near > 12], 0, atol=1e-3)


def test_ada_draws_are_those_of_their_key_and_gates_open_with_their_chance():
    one, same, other, fewer = (
        ada.draw(jax.random.key(seed), 4000, (2, 2, 3), config)
        for seed, config in ((3, ada.BGCFNC), (3, ada.BGCFNC), (4, ada.BGCFNC), (3, ada.BGC))
    )
    assert all(np.array_equal(one[n], same[n]) and not np.array_equal(one[n], other[n]) for n in one)
    assert all(np.array_equal(one[n], fewer[n]) for n in fewer)
    assert len({float(v.ravel()[0]) for v in one.values()}) == len(one)
    x = jnp.ones((4000, 2, 2, 3))
    config = ada.ADA(xflip=0.5, rotate=1, brightness=1)
    amounts = ada._amounts(one, jnp.float32(0.6), config, {n: s for n, s in ada._strengths(config, 3).items() if s}, x)
    share = {n: float(jnp.mean(amounts[n] != 0)) for n in amounts}
    assert abs(share["brightness"] - 0.6) < 0.04
    assert abs(share["xflip"] - 0.15) < 0.03
    turned = jnp.mean((amounts["rotate_pre"] != 0) | (amounts["rotate_post"] != 0))
    assert abs(float(turned) - 0.6) < 0.04
    assert share["scale"] == share["noise"] == 0
    assert ada._chance("rotate_pre", 1.0, jnp.float32(1.3)) == 1  # the controller may pass 1


def test_ada_images_do_not_depend_on_their_neighbours_and_p_is_traced_once():
    x, traces = picture(), []
    draws = ada.draw(jax.random.key(1), 3, x.shape[1:], ada.BGCFNC)

    @jax.jit
    def run(x, draws, p):
        traces.append(1)
        return ada.augment(x, draws, p, ada.BGCFNC)

    y = run(x, draws, jnp.float32(0.9))
    assert np.all(np.max(np.abs(y - x), (1, 2, 3)) > 0.1)
    moved = run(x.at[1:].set(0.5), draws | {n: v.at[1:].set(0.5) for n, v in draws.items()}, jnp.float32(0.9))
    np.testing.assert_allclose(moved[0], y[0], atol=1e-6)
    assert np.max(np.abs(run(x, draws, jnp.float32(0.0)) - y)) > 0.1
    assert len(traces) == 1
    alone = augmented(x[:1], {n: v[:1] for n, v in draws.items()}, 0.9, ada.BGCFNC)
    np.testing.assert_allclose(alone, y[:1], atol=1e-5)


def test_ada_is_affine_in_the_image_so_penalties_go_through_it():
    with jax.enable_x64(True):
        x, w = (jnp.asarray(picture(2, 5, seed=seed), jnp.float64) for seed in (0, 1))
        draws = ada.draw(jax.random.key(2), 2, x.shape[1:], ada.BGCFNC)

        @jax.jit
        def run(x):
            return ada.augment(x, draws, 0.9, ada.BGCFNC)

        np.testing.assert_allclose(run(x) + run(w), run(x + w) + run(jnp.zeros_like(x)), atol=1e-10)

        @jax.jit
        def penalty(w):
            return jnp.sum(jnp.square(jax.grad(lambda x: jnp.sum(jnp.sin(w * run(x))))(x)))

        step = 1e-6 * picture(2, 5, seed=2)
        slope = (penalty(w + step) - penalty(w - step)) / 2
        np.testing.assert_allclose(jnp.sum(jax.jit(jax.grad(penalty))(w) * step), slope, rtol=1e-6)


def test_ada_refuses():
    x = picture()
    with pytest.raises(UserError, match="missing are"):
        ada.augment(x, ada.draw(jax.random.key(0), 3, x.shape[1:], ada.BG), 1.0, ada.BGC)
    with pytest.raises(UserError, match="1 or 3 channels"):
        ada.augment(x[..., :2], certain(brightness_value=0.1), 1.0, ada.ADA(brightness=1))
    with pytest.raises(UserError, match="at least 2 x 2"):
        ada.augment(x[:, :1], ada.draw(jax.random.key(0), 3, (1, 12, 3), ada.BG), 1.0, ada.BG)
    with pytest.raises(UserError, match=r"^noise=-1: must be"):
        ada.ADA(noise=-1)
    with pytest.raises(UserError, match="4 strengths"):
        ada.ADA(imgfilter_bands=(1, 1, 1))  # pyright: ignore


def test_diffaug_draws_for_every_image_and_as_the_policy_says():
    x = jnp.broadcast_to(picture(1, 16), (400, 16, 16, 3))
    key = jax.random.key(5)
    y = jax.jit(diffaug.diffaug)(key, x)
    assert y.shape == x.shape
    assert np.array_equal(y, jax.jit(diffaug.diffaug)(key, x))
    assert not np.array_equal(y[0], y[1])
    assert diffaug.diffaug(key, x, ()) is x
    steps = diffaug.diffaug(key, diffaug.diffaug(key, x, ["color"]), ["translation"])
    np.testing.assert_allclose(diffaug.diffaug(key, x, ("color", "translation")), steps, atol=1e-6)
    with pytest.raises(UserError, match="policy=.*shear"):
        diffaug.diffaug(key, x, ("color", "shear"))


@pytest.mark.parametrize("size", (16, 10))
def test_diffaug_shifts_and_holes_reach_as_far_as_they_should(size):
    spot = jnp.zeros((1000, size, size, 1)).at[:, 5, 5].set(1.0)
    seen = np.argwhere(np.asarray(diffaug.diffaug(jax.random.key(0), spot, ["translation"])).mean(0)[..., 0] > 0)
    far = diffaug.reach(size)
    assert {tuple(at) for at in seen} == {(5 + i, 5 + j) for i in range(-far, far + 1) for j in range(-far, far + 1)}
    kept = np.asarray(diffaug.diffaug(jax.random.key(0), jnp.ones((1000, size, size, 1)), ["cutout"]))[..., 0]
    hole = int(size / 2 + 0.5)
    for axis in (1, 2):
        covered = np.any(kept == 0, 3 - axis)
        for edge in (0, -1):  # at most the half of a hole beyond its middle lies outside
            assert {int(n) for n in np.sum(covered[covered[:, edge]], 1)} == set(range(hole // 2 + hole % 2, hole + 1))


def test_consistency_flips_half_and_reflects():
    x = jnp.broadcast_to(jnp.arange(16.0)[None, None, :, None], (300, 16, 16, 1))
    y = np.asarray(diffaug.consistency(jax.random.key(0), x))
    falls = y[:, 8, 9, 0] < y[:, 8, 8, 0]
    assert 0.4 < np.mean(falls) < 0.6
    assert {math.floor(v) for v in y[~falls, 8, 8, 0]} == {6, 7, 8, 9, 10}
    assert set(np.abs(np.diff(y[:, 8, :, 0])).ravel()) == {1.0}  # reflected without repeating the edge
