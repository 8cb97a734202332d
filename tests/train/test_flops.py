"""FLOPs of a training step."""

from dataclasses import replace

from experiments import ddpm
from jgen.nn import winograd
from jgen.sharding import make_mesh
from jgen.train.flops import flops
from tests import tiny

MESH = make_mesh()


def test_flops_of_a_step_are_the_same_however_it_is_run(monkeypatch):
    (stage,) = ddpm.build(tiny.config(channels=64)).stages
    expected = flops(stage)
    assert flops(replace(stage, train=replace(stage.train, scan=2))) == expected
    assert flops(replace(stage, train=replace(stage.train, accumulate=2))) == expected
    monkeypatch.setattr(winograd, "pays", lambda *_: False)
    assert flops(stage) == expected
