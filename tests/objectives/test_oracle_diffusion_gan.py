"""Diffusion-GAN's process, its controller, and Projected GAN's losses and augmentation, against their authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.errors import UserError
from jgen.objectives import diffaug, diffusion_gan, gan
from jgen.objectives.blur import blur_sigma, blurred
from jgen.objectives.diffusion_gan import Process
from jgen.types import Condition
from tests.oracle import Oracle, files

oracle = pytest.mark.oracle
pytestmark = pytest.mark.slow


@oracle
@pytest.mark.parametrize("path", files("diffusion_gan", "schedules"))
def test_schedules(path):
    o = Oracle(path)
    c = o.config
    found = sorted({tuple(n.split("/")[1:3]) for n in o.names if n.startswith("out/")})
    assert found
    with jax.enable_x64(True):
        for schedule, steps in found:
            count = int(steps.removeprefix("T"))
            process = Process(1, count, schedule, c["beta_start"], c["beta_end"])
            betas = diffusion_gan.betas(process, count)
            # What comes after the last step of a longer process changes nothing.
            longer = diffusion_gan.betas(process._replace(t_max=count + 9), count)
            np.testing.assert_array_equal(longer, np.pad(betas, (0, 9)))
            at = f"out/{schedule}/{steps}"
            o.check(f"{at}/betas", betas)
            for kind, dtype in (("", jnp.float64), ("_f32", jnp.float32)):
                keep, add = diffusion_gan.coefficients(betas.astype(dtype))
                o.check(f"{at}/alphas_bar_sqrt{kind}", keep)
                o.check(f"{at}/one_minus_alphas_bar_sqrt{kind}", add)
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("diffusion_gan", "q_sample"))
def test_forward_diffusion(path):
    o = Oracle(path)
    c = o.config
    with jax.enable_x64(True):
        process = Process(1, c["T"], c["schedule"], c["beta_start"], c["beta_end"])
        levels = diffusion_gan.coefficients(diffusion_gan.betas(process, c["T"]))
        y, t = jnp.asarray(o.nhwc("in/y")), jnp.asarray(o["in/t"])
        o.check("out/alphas_bar_sqrt", levels[0])
        o.check("out/one_minus_alphas_bar_sqrt", levels[1])

        def at(t, noise):
            return diffusion_gan.diffuse(y, t, jnp.asarray(noise), levels, c.get("noise_std", 0.05))

        if "in/eps" in o:
            o.check("out/y_t", at(t, o.nhwc("in/eps")), image=True)
        if "in/bernoulli" in o:
            o.check("out/y_t_bernoulli", at(t, 2.0 * o.nhwc("in/bernoulli") - 1), image=True)
        if "in/t_per_channel" in o:
            by_channel = jnp.asarray(o["in/t_per_channel"]).reshape(len(y), -1)
            o.check("out/y_t_per_channel", at(by_channel, o.nhwc("in/eps_per_channel")), image=True)
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("diffusion_gan", "adaptive_T"))
def test_adaptive_number_of_steps(path):
    o = Oracle(path)
    c = o.config
    process = Process(c["t_min"], c["t_max"], c["beta_schedule"], c["beta_start"], c["beta_end"], c.get("noise_std", 0.05))
    with jax.enable_x64(True):
        p = jnp.asarray(o["in/p"])
        steps = jax.vmap(lambda p: diffusion_gan.steps_of(process, p))(p)
        o.check("out/T", steps)
        counts = jax.vmap(diffusion_gan.projected_count)(p)
        o.check("out/projected/T_nonzero_draws", jnp.stack([steps, counts, counts], 1))
        for i, count in enumerate(np.asarray(steps)):
            o.check(f"out/alphas_bar_sqrt_last/p{i}", diffusion_gan.coefficients(diffusion_gan.betas(process, count))[0][count])
            if f"out/priority_prob/p{i}" in o:
                o.check(f"out/priority_prob/p{i}", diffusion_gan.time_chances(process, count)[:count])
            for kind in ("priority", "uniform"):
                if f"out/pool/{kind}/p{i}" in o:
                    o.check(f"out/pool/{kind}/p{i}", diffusion_gan.pool_of(jnp.asarray(o[f"in/pool_draw/{kind}/p{i}"])))
        if "in/controller/mean_sign" in o:
            check_controller(o, process)
        if "out/forward/T" in o:
            steps = diffusion_gan.steps_of(process, (o["out/forward/T"] - c["t_min"]) / (c["t_max"] - c["t_min"]))
            levels = diffusion_gan.coefficients(diffusion_gan.betas(process, steps))
            t, eps = jnp.asarray(o["in/forward/t"]), jnp.asarray(o.nhwc("in/forward/eps"))
            assert set(o["in/forward/t"]) <= set(o["in/forward/pool"])
            o.check("out/forward/T", steps)
            y = jnp.asarray(o.nhwc("in/forward/y"))
            o.check("out/forward/y_t", diffusion_gan.diffuse(y, t, eps, levels, process.noise_std), image=True)
    o.check_whole()


def check_controller(o, process):
    """Each move is that of one interval: D's logits of reals have the file's mean signs."""
    c = o.config["controller"]
    batch = c["batch_size"]
    made = diffusion_gan.diffusion(process, target=c["target"], kimg=c["ada_kimg"], interval=1)

    def move(extra, mean):
        # one batch of the size of an interval whose first logits are positive, so that the mean sign is on the file's side
        above = jnp.where(mean > c["target"], 1.0, jnp.where(mean < c["target"], -1.0, 0.0))
        extra = made.adapt(extra, jnp.full(batch * c["ada_interval"], above))
        return extra, jnp.stack([extra["diffusion"]["p"], extra["diffusion"]["T"]])

    _, found = jax.lax.scan(move, jax.tree.map(jnp.asarray, dict(made.state)), jnp.asarray(o["in/controller/mean_sign"]))
    o.check("out/controller/p_T", found)


@oracle
@pytest.mark.parametrize("path", files("diffusion_gan", "hinge_losses"))
def test_losses_and_blur(path):
    o = Oracle(path)
    real, fake = (jnp.asarray(o[f"in/logits_{kind}"]) for kind in ("real", "fake"))
    value, grad = jax.value_and_grad(lambda f: gan.hinge.g(f, real))(fake)
    o.check("out/loss_G", value)
    o.check("out/grad/G_wrt_logits_fake", grad)
    value, grads = jax.value_and_grad(gan.hinge.d, (0, 1))(real, fake)
    o.check("out/loss_D", value)
    o.check("out/grad/D_wrt_logits_real", grads[0])
    o.check("out/grad/D_wrt_logits_fake", grads[1])
    if "in/img" in o:
        x, c = jnp.asarray(o.nhwc("in/img")), o.config
        blur = jax.jit(
            lambda x, images: blurred(x, blur_sigma(images, c["blur_init_sigma"], c["blur_fade_kimg"]), c["blur_init_sigma"])
        )
        for i, images in enumerate(c["cur_nimg"]):
            o.check(f"out/blurred_img/{i}", blur(x, images), image=True)
    o.check_whole()


@oracle
@pytest.mark.parametrize("path", files("diffusion_gan", "diffaug"))
def test_diffaugment(path):
    """Its cutout is of a fifth of the side, where DiffAugment's own is of a half."""
    o = Oracle(path)
    x = jnp.asarray(o.nhwc("in/x"))
    policies = sorted({n.split("/")[1] for n in o.names if n.startswith("out/")})
    for policy in policies:
        given = lambda name, policy=policy: jnp.asarray(o[f"in/{policy}/{name}"]).reshape(len(x))  # noqa: E731

        def call(x, policy=policy, given=given):
            if "color" in policy:
                for change in (diffaug.brightness, diffaug.saturation, diffaug.contrast):
                    x = change(x, given(f"{change.__name__}_u"))
            if "translation" in policy:
                x = diffaug.translation(x, given("translation_h"), given("translation_w"))
            if "cutout" in policy:
                x = diffaug.cutout(x, given("cutout_h"), given("cutout_w"), 0.2)
            return x

        y, pull = jax.vjp(call, x)
        o.check(f"out/{policy}/y", y, image=True)
        o.check(f"out/{policy}/grad_x", pull(jnp.asarray(o.nhwc(f"in/{policy}/cotangent")))[0], image=True)
    o.check_whole()


@pytest.mark.parametrize("distribution", ["priority", "uniform"])
def test_times_come_as_often_as_they_should(distribution):
    process = Process(5, 8, distribution=distribution)
    chances = diffusion_gan.time_chances(process, 6)
    want = np.array([0, 1, 2, 3, 4, 5]) / 15 if distribution == "priority" else np.full(6, 1 / 6)
    np.testing.assert_allclose(chances, np.append(want, [0, 0]), atol=1e-6)
    pools = jax.vmap(lambda n: diffusion_gan.state_at(process, 1 / 3, n)["pool"])(jnp.arange(500))
    assert (np.asarray(pools)[:, 32:] == 0).all()
    share = np.bincount(np.asarray(pools)[:, :32].ravel(), minlength=9)[1:] / (500 * 32)
    np.testing.assert_allclose(share, np.append(want, [0, 0]), atol=0.01)


def test_the_discriminator_is_told_the_time_of_what_it_sees():
    made = diffusion_gan.diffusion(Process(10, 20, noise_std=0.0, beta_end=0.5))
    x, extra, key = jnp.ones((64, 2, 2, 1)), dict(made.state), jax.random.key(3)
    seen, t = made.augment(key, x, extra), made.condition(key, x, extra, Condition()).augment[:, 0].astype(int)
    levels = diffusion_gan.coefficients(diffusion_gan.betas(Process(10, 20, beta_end=0.5), 10))[0]
    np.testing.assert_allclose(seen[:, 0, 0, 0], levels[t], rtol=1e-6)
    assert 10 < int(jnp.sum(t == 0)) < 54


@pytest.mark.parametrize("change", [{"t_min": 0}, {"t_min": 9, "t_max": 8}, {"beta_end": 1.0}, {"schedule": "x"}])
def test_settings_out_of_range_are_refused(change):
    with pytest.raises(UserError, match=next(iter(change))):
        diffusion_gan.diffusion(Process()._replace(**change))
