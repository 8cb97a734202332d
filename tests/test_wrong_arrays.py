"""Functions called from Python say what is wrong with their arrays, before a number comes of them or a broadcast fails."""

import jax.numpy as jnp
import numpy as np
import pytest

from jgen import pictures, samplers, schedules, sde
from jgen.data import ArraySource
from jgen.edit import latents, styles
from jgen.errors import UserError
from jgen.metrics import class_score, extract, frechet, image_quality, kernel, neighbours
from jgen.objectives import diffusion
from jgen.samplers import ddim, image_keys, noise

ROWS = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
BROKEN = np.where(np.arange(20)[:, None] == 3, np.nan, ROWS)
KEYS = image_keys(0, 2)
X = noise(KEYS, (4, 4, 1))
CHAIN = schedules.linear(40)
POINT, SHARES = jnp.ones(4), jnp.ones(2)


@pytest.mark.parametrize("call, says", [
    (lambda: class_score.inception_score(BROKEN, 2), "inception_score: logits hold NaN or infinity"),
    (lambda: class_score.modes_found(BROKEN), "modes: logits hold NaN"),
    (lambda: class_score.modes_found(ROWS[:0]), "modes: no rows"),
    (lambda: kernel.kid(ROWS, BROKEN), "kid: generated hold NaN or infinity"),
    (lambda: kernel.kid(ROWS, ROWS[:, :3]), "kid: rows of 3 and 4 numbers; must be of as many in both sets"),
    (lambda: neighbours.manifold(BROKEN, ROWS), "precision and recall: real hold NaN"),
    (lambda: neighbours.manifold(ROWS, ROWS[:, :3]), "precision and recall: rows of 3 and 4 numbers"),
    (lambda: neighbours.manifold(ROWS, ROWS[0]), r"generated of shape \[4\]; must be \[N, D\]"),
    (lambda: frechet.feature_moments(ROWS[0]), r"features of shape \[4\]; must be \[N, D\]"),
])  # fmt: skip
def test_scores_of_rows_that_are_none(call, says):
    with pytest.raises(UserError, match=says):
        call()


@pytest.mark.parametrize("how, says", [
    ({"eta": -1.0}, "eta=-1.0: must be from 0"), ({"eta": 2.0}, "eta=2.0"), ({"eta": float("nan")}, "eta=nan"),
    ({"eta": 1.0, "keys": image_keys(0, 3)}, r"keys: of shape \[3\] for 2 images; must be one each"),
    ({"eta": 1.0, "keys": KEYS[0]}, r"keys: of shape \[\] for 2 images"),
    ({"predict": lambda x, t: x[:1]}, r"predict: returned \[1, 4, 4, 1\] for x of \[2, 4, 4, 1\]; must be clean images"),
    ({"predict": lambda x, t: x[..., 0]}, r"predict: returned \[2, 4, 4\]"),
    ({"predict": lambda x, t: jnp.concatenate([x, x], -1)}, r"predict: returned \[2, 4, 4, 2\]"),
])  # fmt: skip
def test_ddim_of_predictions_and_keys_that_do_not_fit(how, says):
    given = {"predict": lambda x, t: 0.9 * x, "keys": KEYS, **how}
    with pytest.raises(UserError, match=says):
        ddim(given.pop("predict"), CHAIN, X, given.pop("keys"), timesteps=3, **given)


PAIR = np.zeros((2, 1, 32, 32, 1), np.float32)


@pytest.mark.parametrize("call, says", [
    (lambda: image_quality.psnr(*(PAIR > 0)), "images of bool and bool: give the data_range"),
    (lambda: image_quality.psnr(*PAIR, 0.0), "data_range=0.0: must be above 0"),
    (lambda: image_quality.ssim(*PAIR, border="Reflect"), "border=Reflect: must be one of valid, reflect"),
    (lambda: image_quality.ssim(*PAIR, window=np.ones((7, 7))), r"window of shape \[7, 7\]: must be \[size\]"),
    (lambda: image_quality.ms_ssim(*PAIR), "images 32x32: at the last of 5 scales smaller than the window of 11 pixels"),
    (lambda: extract.open_extractor("vgg16"), "extractor=vgg16: needs the file of its weights, vgg16:FILE"),
    (lambda: pictures.grid(PAIR[0, 0]), r"images of shape \[32, 32, 1\]; must be \[N, H, W, 1 or 3\]"),
    (lambda: pictures.grid(PAIR[0, :0]), r"images of shape \[0, 32, 32, 1\]; .* at least one"),
    (lambda: ArraySource({"img": PAIR[0]}), 'arrays img; one must be "image"'),
    (lambda: ArraySource({"image": PAIR[0], "label": np.zeros((1, 1), np.int32)}, ("a",)), r"labels of shape \(1, 1\), int32"),
    (lambda: ArraySource({"image": PAIR[0], "label": np.zeros(1)}, ("a",)), "float64: must be whole numbers"),
    (lambda: ArraySource({"image": PAIR[0], "label": np.zeros(1, np.int32)}), "labels, but no classes; name them"),
])  # fmt: skip
def test_images_that_do_not_fit(call, says):
    with pytest.raises(UserError, match=says):
        call()


def nearly(x, t):
    return 0.9 * x


GRID, ONE, KNOWN = [2.0, 1.0, 0.0], KEYS[:1], jnp.ones((1, 4, 4, 1), bool)
LANGEVIN = {"steps": 2, "step_size": 0.1}
CONTINUOUS = {
    "euler_ancestral": lambda keys: samplers.euler_ancestral(nearly, X, GRID, keys),
    "dpmpp_sde": lambda keys: samplers.dpmpp_sde(nearly, X, GRID, keys),
    "dpm_adaptive": lambda keys: samplers.dpm_adaptive(nearly, X, 0.1, 2.0, eta=1.0, keys=keys),
    "ancestral": lambda keys: samplers.ancestral(nearly, CHAIN, X, keys, timesteps=3),
    "repaint": lambda keys: samplers.repaint(nearly, CHAIN, X, X, KNOWN, keys, timesteps=3),
    "sdedit": lambda keys: samplers.sdedit(samplers.euler, nearly, X, GRID, keys, sigma=1.0),
    "unadjusted": lambda keys: samplers.unadjusted_langevin(lambda x: -x, X, keys, **LANGEVIN),
    "metropolis": lambda keys: samplers.metropolis_langevin(lambda x: -jnp.sum(x**2, (1, 2, 3)), X, keys, **LANGEVIN),
    "annealed": lambda keys: samplers.annealed_langevin(nearly, X, [2.0, 1.0], keys, steps_each=2, step_size=0.1),
    "consistent": lambda keys: samplers.consistent_langevin(nearly, X, [2.0, 1.5], keys),
    "predictor_corrector": lambda keys: samplers.predictor_corrector(sde.vp(steps=40), nearly, X, keys),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_samplers_with_noise_want_a_key_an_image(name):
    with pytest.raises(UserError, match=r"keys: of shape \[1\] for 2 images; must be one each, of image_keys"):
        CONTINUOUS[name](ONE)


@pytest.mark.parametrize("call, says", [
    (lambda: samplers.euler(lambda x, s: x[..., 0], X, GRID), r"denoise: returned \[2, 4, 4\] for x of \[2, 4, 4, 1\]"),
    (lambda: samplers.heun(lambda x, s: jnp.zeros((1, 1, 1, 1)), X, GRID), r"denoise: returned \[1, 1, 1, 1\]"),
    (lambda: samplers.euler(nearly, X.astype(jnp.uint8), GRID), "x: of uint8; must be floats"),
    (lambda: samplers.ddim(nearly, CHAIN, X.astype(jnp.uint8), KEYS, timesteps=3), "x: of uint8; must be floats"),
    (lambda: samplers.euler(nearly, X, [float("inf"), 1.0, 0.0]), "must fall, to 0 or above"),
    (lambda: samplers.ddim(nearly, CHAIN, X, KEYS, timesteps=5.0), "timesteps=5.0: must be a whole number of steps"),
    (lambda: samplers.ddim(nearly, CHAIN, X, KEYS, timesteps=True), "timesteps=True: must be a whole number"),
    (lambda: samplers.ancestral(nearly, CHAIN, X, KEYS, timesteps=3, variance="big"), "variance=big: must be one of small"),
    (lambda: samplers.dpm_solver(nearly, X, GRID, parameterization="eps"), "parameterization=eps: must be one of data, noise"),
    (lambda: samplers.dpmpp_multistep_sde(nearly, X, [3.0, *GRID], KEYS, form="heun"), "form=heun: must be one of midpoint"),
    (lambda: samplers.euler_ancestral(nearly, X, GRID, KEYS, eta=-1.0), "eta=-1.0: must be at least 0"),
    (lambda: samplers.dpmpp_multistep_sde(nearly, X, [3.0, *GRID], KEYS, s_noise=-1.0), "s_noise=-1.0: must be at least 0"),
    (lambda: samplers.dpm_solver(nearly, X, GRID, method="singlestep", form="heun"), "form=heun: must be one of midpoint"),
    (lambda: samplers.rk45(nearly, X, 2.0, 0.1), "sigma_min=2.0, sigma_max=0.1: must be 0 < sigma_min < sigma_max"),
    (lambda: samplers.dpm_adaptive(nearly, X, 0.0, 2.0), "sigma_min=0.0, sigma_max=2.0: must be"),
    (lambda: samplers.repaint(nearly, CHAIN, X, X[:, :3], KNOWN, KEYS, timesteps=3), r"known \[2, 3, 4, 1\], mask \[1, 4"),
    (lambda: samplers.repaint(nearly, CHAIN, X, X, KNOWN[0, ..., 0], KEYS, timesteps=3), r"mask \[4, 4\] for x of"),
    (lambda: schedules.named("cosin", 100), "schedule=cosin: must be one of .* \\(did you mean cosine"),
])  # fmt: skip
def test_samplers_of_arguments_that_do_not_fit(call, says):
    with pytest.raises(UserError, match=says):
        call()


def test_a_prediction_by_another_name_is_not_taken_for_v():
    for call in (
        lambda: diffusion.predictor(nearly, CHAIN, "epsilon"),
        lambda: diffusion.target(CHAIN, X, jnp.zeros(2, int), X, "epsilon"),
    ):
        with pytest.raises(UserError, match="prediction=epsilon: must be one of eps, x0, v, xprev"):
            call()


def test_numpy_s_whole_numbers_are_steps():
    np.testing.assert_array_equal(*(ddim(nearly, CHAIN, X, KEYS, timesteps=n) for n in (3, np.int64(3))))


@pytest.mark.parametrize("name", ["unadjusted", "metropolis"])
def test_langevin_dynamics_in_bfloat16(name, monkeypatch):
    monkeypatch.setattr("tests.test_wrong_arrays.X", X.astype(jnp.bfloat16))
    found = CONTINUOUS[name](KEYS)
    assert (found[0] if name == "metropolis" else found).dtype == jnp.bfloat16


@pytest.mark.parametrize("call, says", [
    (lambda: latents.slerp(POINT, jnp.ones(5), SHARES), r"a \[4\], b \[5\], t \[2\]: must be two points \[D\] and shares"),
    (lambda: latents.slerp(jnp.ones((2, 4)), jnp.ones((2, 4)), SHARES), "flatten others"),
    (lambda: latents.lerp(POINT, POINT, 0.5), r"t \[\]: must be"),
    (lambda: latents.slerp_sines(POINT, POINT, 0.5), r"t \[\]: must be"),
    (lambda: latents.traversal(POINT, 2, 0), "steps=0: must be at least 1"),
    (lambda: styles.swapped(jnp.ones((2, 4, 4)), jnp.zeros((2, 4, 4)), (7, 9)), r"rows=\(7, 9\): must be from 0 up to 4"),
])  # fmt: skip
def test_latents_that_do_not_fit(call, says):
    with pytest.raises(UserError, match=says):
        call()
