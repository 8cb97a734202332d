"""The recipes of CONTRIBUTING, followed to the letter: a sampler is one file and one row, a GAN a model and an experiment."""

import sys
import textwrap
import types
from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jgen
from experiments import ddpm
from jgen import samplers
from jgen.app import cli, runs
from jgen.app.experiments import running
from jgen.config import DataConfig, LabelSampling, MeshConfig, TrainConfig, changed
from jgen.config.samplers import SAMPLERS, Stepped
from jgen.samplers import image_keys
from tests import tiny

SAMPLER = '''
"""Euler's method, written once more."""

from jax import numpy as jnp


def toy(denoise, x, sigmas, keys=None, *, push=1.0):
    for sigma, to in zip(sigmas[:-1], sigmas[1:]):
        x = x + push * (to - sigma) * (x - denoise(x, jnp.full(len(x), sigma, x.dtype))) / sigma
    return x
'''


@dataclass(frozen=True)
class Toy(Stepped):
    """Euler's method, written once more."""

    sampler = "toy"
    function = "toy_samplers.of_a_user.toy"
    push: float = 1.0


def test_a_sampler_is_one_file_and_one_row(monkeypatch, tmp_path):
    module = types.ModuleType("toy_samplers.of_a_user")
    exec(textwrap.dedent(SAMPLER), module.__dict__)
    monkeypatch.setitem(sys.modules, "toy_samplers", types.ModuleType("toy_samplers"))
    monkeypatch.setitem(sys.modules, "toy_samplers.of_a_user", module)
    monkeypatch.setitem(SAMPLERS, "toy", Toy)
    stage = ddpm.build(tiny.parsed("ddpm", "--sampling.sampler", "toy", "--sampling.push", "1")).stages[0]
    assert isinstance(stage.options.solver, Toy)
    params, extra = tiny.fresh(stage)
    params = jax.tree.map(lambda v: v + 0.03, params)
    found = []
    for name in ("toy", "euler"):
        options = changed(stage.options, {"sampler": name, "steps": 5})
        found.append(jax.jit(lambda p, o=options: stage.sample(p, extra, image_keys(0, 2), o))(params))
    np.testing.assert_allclose(*found, atol=1e-4)
    with pytest.raises(ValueError, match="eta: no such sampling option"):
        changed(stage.options, {"eta": 1.0})


@dataclass(frozen=True)
class Config:
    data: DataConfig = DataConfig("digits", batch_size=8, limit=64)
    train: TrainConfig = TrainConfig(steps=2, save_every=2, sample_every=0)
    mesh: MeshConfig = field(default_factory=lambda: MeshConfig(devices=1))
    sampling: LabelSampling = LabelSampling()


def build(config):
    import optax

    from jgen.objectives import gan
    from jgen.objectives.adversarial import discriminator_loss, generator_loss
    from jgen.recipes.common import resolved
    from jgen.train import Phase
    from jgen.train.stage import Experiment, Stage

    c, players = resolved(config), linear_gan()
    phases = [Phase("d", discriminator_loss(players, gan.hinge)), Phase("g", generator_loss(players, gan.hinge))]
    adam = optax.adam(1e-3)
    sample = lambda params, extra, keys, options: players.generate(  # noqa: E731
        params, extra, players.latents(keys, jgen.types.Condition()), jgen.types.Condition(), train=False
    )[0]
    stage = Stage(
        name="linear", data=c.data, train=c.train, init=players.init, phases=phases, optimizers={"d": adam, "g": adam},
        sample=sample, options=c.sampling,
    )  # fmt: skip
    return Experiment([stage])


def linear_gan():
    """A GAN whose players are a matrix each."""
    from jgen.objectives.adversarial import GAN
    from jgen.types import DiscriminatorOutput

    def init(key, batch):
        size = int(np.prod(batch["image"].shape[1:]))
        a, b = jax.random.split(key)
        return {"g": 0.1 * jax.random.normal(a, (4, size)), "d": 0.1 * jax.random.normal(b, (size,))}, {}

    def generate(params, extra, z, condition, /, *, train):
        return jnp.tanh(z @ params["g"]).reshape(len(z), 8, 8, 1), {}

    def discriminate(params, extra, images, condition, /, *, train):
        return DiscriminatorOutput(images.reshape(len(images), -1) @ params["d"]), {}

    return GAN(
        init=init,
        latents=lambda keys, condition: samplers.noise(keys, (4,)),
        train_latents=lambda key, images, rows: jax.random.normal(key, (rows, 4)),
        generate=generate,
        discriminate=discriminate,
    )


def test_a_gan_is_its_players_and_an_experiment(tmp_path):
    runs.train(__name__, "toy", build, Config(), tmp_path / "run")
    run = jgen.load(tmp_path / "run", module=sys.modules[__name__])
    images = run.sample(num=3)
    assert images.shape == (3, 8, 8, 1)
    assert np.isfinite(images).all()
    assert len(repr(run).splitlines()) == 5
    with pytest.raises(ValueError, match="is none of jgen's experiments; pass its module"):
        jgen.load(tmp_path / "run")
    with pytest.raises(ValueError, match="module='mine': must be the module itself, not str; import it first"):
        jgen.load(tmp_path / "run", module="mine")


def test_commands_of_an_experiment_that_is_not_jgen_s(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "start", lambda *_: None)  # the devices of this process are there
    presets = {"toy": Config()}
    try:
        jgen.main(Config, build, presets, ["--name", "a"])
        folder = tmp_path / "runs" / __name__.split(".")[-1] / "a"
        jgen.main(Config, build, presets, ["sample", "--num", "3", "--out", "images.npz"])
        jgen.main(Config, build, presets, ["export", "--to", "weights"])
    finally:
        running.pop(__name__, None)
    assert np.load("images.npz")["images"].shape == (3, 8, 8, 1)
    assert (folder / "export-weights" / "config.json").is_file()
    with pytest.raises(ValueError, match="is none of jgen's experiments"):
        jgen.load(folder)


def test_a_program_that_was_started_by_its_file_has_the_file_s_name(monkeypatch):
    build = types.SimpleNamespace(__module__="__main__")
    program = types.ModuleType("__main__")
    program.__file__, program.__spec__ = "somewhere/mine.py", None
    monkeypatch.setitem(sys.modules, "__main__", program)
    assert cli._name(build) == "mine"
    del program.__file__
    assert cli._name(build) == "__main__"
