"""The options of sampling: each sampler, model and stage has its own, and all others are refused by name."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from experiments import cascade, ddpm, edm, flow_matching, guided, improved_ddpm, latent_diffusion, ncsn, score_sde
from tests import tiny
from tests.tiny import configured, shape_of, stages


@pytest.mark.parametrize(
    "options, says",
    [
        (dict(sampler="ddim", churn=1.0), "churn: no such sampling option"),
        (dict(sampler="dpm", churn_noise=1.1), "churn_noise: no such sampling option"),
        (dict(sampler="ddpm", eta=0.7), "eta: no such sampling option"),
        (dict(sampler="ddim", variance="small"), "variance: no such sampling option .did you mean bound_variance"),
        (dict(sampler="heun", order=3), "order: no such sampling option"),
        (dict(sampler="ddim", resamplings=3), "resamplings: no such sampling option"),
        (dict(sampler="heun", parameterization="noise"), "parameterization: no such sampling option"),
        (dict(sampler="rk45", steps=9), "steps: no such sampling option.*tolerance"),
        (dict(sampler="rk45", tolerance=0.0), "tolerance=0.0: must be above 0"),
        (dict(sampler="dpm_adaptive", tolerance=float("nan")), "tolerance=nan: must be a number above 0"),
        (dict(sampler="ddim", classifier_scale=-1.0), "classifier_scale=-1.0: must be at least 0"),
        (dict(sampler="dpm", tolerance=0.1), "tolerance: no such sampling option"),
        (dict(sampler="dpm_adaptive", grid="karras"), "grid: no such sampling option"),
        (dict(sampler="dpm", threshold=2.0), "threshold=2.0: must be from 0 to 1"),
        (dict(sampler="ddim", eta=-2.0), "eta=-2.0: must be from 0 to 1"),
        (dict(sampler="dpm", guidance_from=5.0, guidance_to=1.0), "guidance_from=5.0: must be below guidance_to=1.0"),
        (dict(sampler="dpm", sigma_min=1e6), "sigma_min=1000000.0: must be below"),
        (dict(sampler="dpm", grid="time", sigma_min=0.1), "sigma_min=0.1: grid=time goes down"),
        (dict(sampler="ddpm", steps=1), "steps=1: must be at least 2"),
        (dict(sampler="heum"), "sampler=heum: must be one of ddim, .*did you mean heun"),
        (dict(sampler="pc"), "sampler=pc: must be one of ddim"),
        (dict(guidance=float("inf")), "guidance=inf: must be a finite number"),
    ],
)
def test_options_without_effect_are_refused(options, says):
    """A sampler has its own options only, and every number is in its range."""
    with pytest.raises(ValueError, match=says):
        shape_of(tiny.stage(), **options)


def test_an_empty_interval_of_guidance_is_refused_guided_or_not():
    empty, says = dict(guidance_from=5.0, guidance_to=1.0), "guidance_from=5.0: must be below guidance_to=1.0"
    for sampler in ("ddim", "dpm"):
        with pytest.raises(ValueError, match=says):
            shape_of(tiny.stage(conditional=True, drop_label=0.1), sampler=sampler, guidance=2.0, **empty)
    for module, sampler in ((ddpm, "ddim"), (edm, "heun"), (score_sde, "pc"), (score_sde, "ode"), (ncsn, "annealed")):
        with pytest.raises(ValueError, match=says):
            shape_of(stages(module, module.__name__.split(".")[-1])[0], sampler=sampler, **empty)


@pytest.mark.parametrize(
    "module",
    [ddpm, improved_ddpm, guided, edm, flow_matching, score_sde, latent_diffusion, cascade, ncsn],
    ids=lambda m: m.__name__.split(".")[-1],
)
def test_a_run_s_own_options_do_not_stand_in_the_way_of_another_sampler(module):
    """Presets have settings of their own for their samplers; to change the sampler alone is no error."""
    for name, preset in module.PRESETS.items():
        if name in ("imagenet64", "imagenet256", "cifar10", "fashion_mnist"):  # the settings of sampling, on a small model
            flags = ["--condition", "class"] if module is latent_diffusion else []
            config = replace(configured(module, module.__name__.split(".")[-1], *flags), sampling=preset.sampling)
            if module is cascade:
                config = tiny.with_option(config, "objective", preset.cascade.objective)
            if hasattr(config, "chain"):
                config = tiny.with_option(config, "diffusion_steps", preset.chain.diffusion_steps)
            stage = module.build(config).stages[-1]
            alone = {"steps": 3, "steps_each": ()} if module is cascade else {}
            shape_of(stage, sampler="heun", **alone)


def test_each_stage_of_a_cascade_has_a_sampler_of_its_own():
    _, last = stages(cascade, "cascade")
    assert shape_of(last, samplers=("ddpm", "dpm")) == (3, 8, 8, 1)
    assert shape_of(last, sampler="ddpm", samplers=("ddpm", "dpm"), variance="large") == (3, 8, 8, 1)
    assert shape_of(last, samplers=("rk45", "dpm"), steps_each=(9, 4)) == (3, 8, 8, 1)
    for samplers in (("dpm", "dpm"), ("ddpm", "dpm")):
        with pytest.raises(ValueError, match=r"eta: no such sampling option"):
            shape_of(last, samplers=samplers, eta=0.5)
        with pytest.raises(ValueError, match=rf"sampler=ddim: has no effect beside samplers={' '.join(samplers)}"):
            shape_of(last, sampler="ddim", samplers=samplers, eta=0.5)
    # The options are those of the sampler that is named, for the stages that have it.
    assert shape_of(last, sampler="ddim", samplers=("dpm", "ddim"), eta=0.5) == (3, 8, 8, 1)
    with pytest.raises(ValueError, match=r"sampler=heun: has no effect beside samplers=ddim ddim"):
        shape_of(last, samplers=("ddim", "ddim"), sampler="heun")
    with pytest.raises(ValueError, match=r"steps=7: has no effect beside steps_each=4 4"):
        shape_of(last, steps_each=(4, 4), steps=7)
    with pytest.raises(ValueError, match=r"steps_each: 1 for super_8; ddpm takes from 2 to 40"):
        shape_of(last, samplers=("dpm", "ddpm"), steps_each=(5, 1))
    with pytest.raises(ValueError, match=r"steps_each=\(9, 9\): rk45 choose their own steps"):
        shape_of(last, samplers=("rk45", "rk45"), steps_each=(9, 9))
    with pytest.raises(ValueError, match=r"samplers: 1 given, for the 2 stages base, super_8"):
        shape_of(last, samplers=("ddpm",))
    with pytest.raises(ValueError, match=r"steps_each: 3 given, for the 2 stages"):
        shape_of(last, steps_each=(1, 2, 3))
    with pytest.raises(ValueError, match=r"sampler=pc: must be one of ddim"):
        shape_of(last, samplers=("dpm", "pc"))


def test_options_of_other_models_are_refused():
    with pytest.raises(ValueError, match=r"threshold=0.9: is for pixels"):
        shape_of(stages(latent_diffusion, "latent_diffusion")[1], threshold=0.9)
    with pytest.raises(ValueError, match=r"snr: no such sampling option"):
        shape_of(stages(score_sde, "score_sde")[0], sampler="heun", snr=0.2)
    with pytest.raises(ValueError, match=r"steps: no such sampling option .did you mean step_size, steps_each"):
        shape_of(stages(ncsn, "ncsn")[0], steps=7)
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(stages(ncsn, "ncsn")[0], guidance=2.0)
    for module, sampler in ((score_sde, "pc"), (score_sde, "ode"), (ncsn, "annealed")):
        with pytest.raises(ValueError, match=rf"threshold=0.9: {sampler} has no clean images to scale"):
            shape_of(stages(module, module.__name__.split(".")[-1])[0], sampler=sampler, threshold=0.9)
    with pytest.raises(ValueError, match=r"grid=time: this model has no times of its own"):
        shape_of(stages(edm, "edm")[0], grid="time")


def test_guidance_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"guidance=2.0: this model is not class-conditional"):
        shape_of(tiny.stage(), guidance=2.0)
    with pytest.raises(ValueError, match=r"guidance=2.0: the model was trained with all labels"):
        shape_of(tiny.stage(conditional=True), guidance=2.0)
    with pytest.raises(ValueError, match=r"drop_label=0.1: only a conditional model"):
        tiny.stage(drop_label=0.1)
    with pytest.raises(ValueError, match=r"label=10: must be from 0 to 9"):
        shape_of(tiny.stage(conditional=True, drop_label=0.1), label=10)
    first, second = stages(guided, "guided")
    with pytest.raises(ValueError, match="the classifier is not trained yet"):
        shape_of(first, classifier_scale=1.0)
    for sampler in ("ddim", "heun"):
        assert shape_of(second, classifier_scale=1.0, sampler=sampler) == (3, 8, 8, 1)


def test_a_chain_too_short_for_its_schedule_names_its_option():
    with pytest.raises(ValueError, match="^diffusion_steps=20: the linear schedule needs more than 20 steps; use cosine$"):
        ddpm.build(configured(ddpm, "ddpm", "--schedule", "linear", "--diffusion-steps", "20"))
    with pytest.raises(ValueError, match="^channels=7: must be even and at least 4"):
        tiny.shapes_of(stages(edm, "edm", "--channels", "7")[0])


def test_steps_that_cannot_be_are_refused():
    for sampler in ("ddim", "dpm"):
        with pytest.raises(ValueError, match="steps=0"):
            shape_of(tiny.stage(), sampler=sampler, steps=0)
    with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
        shape_of(tiny.stage(), steps=41)
    with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
        shape_of(tiny.stage(), sampler="dpm", steps=41)
    for sampler in ("ddim", "heun"):
        stage = tiny.stage(sampling__sampler=sampler, sampling__steps=41)
        params, extra = tiny.shapes_of(stage)
        with pytest.raises(ValueError, match="steps=41: must be from 1 to the schedule's 40"):
            jax.eval_shape(stage.on_request["edited"], params, extra, jax.random.key(0), {"image": jnp.zeros((8, 8, 8, 1))})
