"""What a step needs, by shapes alone, against what a compiler plans; and the advice where it does not fit."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jgen.config import DataConfig, MeshConfig
from jgen.data.known import KNOWN, resolve_or_known
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train import estimate
from jgen.train.compiled import compile_stage
from jgen.train.flops import flops
from jgen.train.remat import phases
from jgen.train.stage import batch_shapes, state_shapes
from jgen.train.step import Phase, make_step
from jgen.train.summary import _peak_bytes
from tests import tiny


def stage_of(name, preset="digits", **train):
    module = tiny.module(name)
    config = module.PRESETS[preset]
    return module.build(replace(config, train=replace(config.train, **train))).stages[0]


@pytest.mark.slow
@pytest.mark.parametrize("name,remat", [("ddpm", False), ("ddpm", True), ("stylegan2", False), ("pixelcnn", False)])
def test_memory_is_near_what_xla_plans(name, remat):
    stage = stage_of(name, remat=remat)
    planned = _peak_bytes(compile_stage(stage, make_mesh(MeshConfig(devices=1))), stage)
    assert 0.7 * planned < estimate.memory(stage, 1).total < 1.4 * planned


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,flags",
    [
        ("ddpm", ["--channels", "64"]),
        (
            "stylegan2",
            ["--channel-max", "64", "--channel-base", "512", "--r1-every", "1", "--path-every", "1", "--augment", "none"],
        ),
        ("glow", ["--width", "128", "--dequantization", "uniform"]),
    ],
)
def test_flops_are_near_those_of_the_compiled_step(name, flags):
    """A compiler computes some numbers twice and leaves others out: within 10 % for a diffusion model, a GAN and a flow."""
    stage = tiny.stages(tiny.module(name), name, *flags)[0]
    step = jax.jit(make_step(phases(stage), stage.optimizers, stage.ema))
    compiled = step.lower(state_shapes(stage), jax.random.key(0), batch_shapes(stage)).compile()
    assert flops(stage) == pytest.approx(compiled.cost_analysis()["flops"], rel=0.1)


@pytest.mark.slow
def test_flops_of_an_update_count_by_how_often_it_runs():
    """With G at every step, every second and every fourth, a step costs D + G, D + G / 2 and D + G / 4."""
    one, two, four = (
        flops(tiny.stages(tiny.module("gan"), "gan", "--critic-steps", n, "--augment", "none")[0]) for n in ("1", "2", "4")
    )
    assert one - two == pytest.approx(2 * (two - four), rel=1e-6)
    assert one > two > four


def test_flops_of_a_loop_count_as_often_as_it_turns():
    weights = jnp.ones((8, 8))

    def loss(turns):
        def value(params, extra, key, batch):
            x, _ = jax.lax.scan(
                lambda x, _: (jnp.tanh(x @ params["net"]), None), batch["image"][0, :, :, 0], None, length=turns
            )
            return jnp.sum(x), (extra, {})

        return value

    def cost(turns):
        (stage,) = tiny.stages(tiny.module("ddpm"), "ddpm")
        init = lambda key, batch: ({"net": weights}, {})  # noqa: E731
        made = replace(stage, init=init, phases=[Phase("net", loss(turns))])
        return flops(made)

    one, two, three = map(cost, (1, 2, 3))
    assert three - two == two - one > 3 * 2 * 8**3


def test_memory_follows_the_batch_and_its_parts():
    whole, parts = estimate.memory(stage_of("ddpm"), 1), estimate.memory(stage_of("ddpm", accumulate=4), 1)
    assert whole.state == parts.state
    assert 0.2 < parts.activations / whole.activations < 0.35
    assert estimate.memory(stage_of("ddpm"), 4).activations == parts.activations


@pytest.mark.slow
def test_advice_is_the_first_change_that_fits():
    def stage_with(dtype, remat, accumulate):
        return stage_of("ddpm", dtype=dtype, remat=remat, accumulate=accumulate)

    now = estimate.Change("float32", False, 1, 1)
    memory_of, stage = estimate.memory_by_settings(stage_with, now, 8), stage_with(*now[:3])
    found = memory_of(*now[:3])
    assert found == estimate.memory(stage, 8)
    half = memory_of("float32", False, 2)  # on the line between whole batches and single images
    assert half.activations == pytest.approx(estimate.memory(stage_with("float32", False, 2), 8).activations, rel=0.02)
    advice = functools.partial(estimate.advice, memory_of, stage, now, 8)
    assert advice(found.total) == ""
    assert advice(found.total - 1) == "--train.accumulate 2"
    assert "--mesh.fsdp 8" in advice((found.state + found.gradients) / 2)
    assert advice(10) == ""


def test_days_are_flops_over_what_the_devices_do():
    device = estimate.Device(1e9, 1e12, 2e12)
    assert estimate.days(0.4e12, 86400 * 8, device, "float32", 8) == pytest.approx(1.0)
    assert estimate.days(0.4e12, 86400 * 8, device, "bfloat16", 8) == pytest.approx(0.5)


def test_sets_that_are_not_here_have_known_shapes(capsys):
    for name, (shape, classes) in KNOWN.items():
        found = resolve_or_known(DataConfig(name, resolution=0 if shape else 256))
        assert found.num_classes in (classes, len(found.classes))
        assert found.shape == (shape or (256, 256, 3))
    assert resolve_or_known(DataConfig("folder:no/where", resolution=128, channels=1)).shape == (128, 128, 1)
    assert capsys.readouterr().err.endswith(
        "not read, so planned for images of 128x128x1 and no classes: data.name=folder:no/where: no such folder\n"
    )
    with pytest.raises(UserError, match="no such set"):
        resolve_or_known(DataConfig("nothing_at_all"))
