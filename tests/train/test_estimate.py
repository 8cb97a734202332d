"""What a step needs, by shapes alone, against what a compiler plans; and the advice where it does not fit."""

from dataclasses import replace

import pytest

from jgen.config import DataConfig, MeshConfig
from jgen.data.known import KNOWN, resolve_or_known
from jgen.errors import UserError
from jgen.sharding import make_mesh
from jgen.train import estimate
from jgen.train.loop import compile_stage
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
    found = estimate.memory(stage_with(*now[:3]), 8)
    assert estimate.advice(stage_with, now, 8, found.total) == ""
    assert estimate.advice(stage_with, now, 8, found.total - 1) == "--train.accumulate 2"
    flags = estimate.advice(stage_with, now, 8, (found.state + found.gradients) / 2)
    assert "--mesh.fsdp 8" in flags
    assert estimate.advice(stage_with, now, 8, 10) == ""


def test_days_are_flops_over_what_the_devices_do():
    device = estimate.Device(1e9, 1e12, 2e12)
    assert estimate.days(0.4e12, 86400 * 8, device, "float32", 8) == pytest.approx(1.0)
    assert estimate.days(0.4e12, 86400 * 8, device, "bfloat16", 8) == pytest.approx(0.5)


def test_sets_that_are_not_here_have_known_shapes():
    for name, (shape, classes) in KNOWN.items():
        found = resolve_or_known(DataConfig(name, resolution=0 if shape else 256))
        assert found.num_classes in (classes, len(found.classes))
        assert found.shape == (shape or (256, 256, 3))
    assert resolve_or_known(DataConfig("folder:/nowhere", resolution=128, channels=1)).shape == (128, 128, 1)
    with pytest.raises(UserError, match="no such set"):
        resolve_or_known(DataConfig("nothing_at_all"))
