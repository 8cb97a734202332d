"""Experiments shrunk to seconds."""

import importlib
import os
import pkgutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import experiments
from experiments import ddpm
from jgen.app.parsing import parse_config
from jgen.app.training import write_config
from jgen.config import changed
from jgen.data import open_source
from jgen.recipes.common import resolved
from jgen.samplers import image_keys
from jgen.train.checkpoint import Checkpoints
from jgen.train.stage import first_batch, first_batch_shapes

CPU = ("digits", "fashion_mnist", "glyphs", "emoji32")
CPU_TOO = {("projected_gan", "emoji64")}
"""Presets of any experiment, and of one, that are for CPUs; the others are for accelerators."""
ROOT = Path(__file__).resolve().parents[1]
STUDIES = ("mixture", "gaussians")  # not trained on images, so without a Config
EXPERIMENTS = sorted({m.name for m in pkgutil.iter_modules(experiments.__path__) if m.name[0] != "_"} - {*STUDIES})

PSP = ("--encoder", "psp", "--pool", "50", "--w-r1-every", "16")
"""Flags of an encoder without e4e's discriminator, whose options psp refuses."""
WITH_GAN = ("--gan-steps", "2400")
"""Flags beside --gan, with which no GAN is trained first."""

# Command-line flags that shrink each experiment; a new experiment must be given its own.
FLAGS = {
    "adcgan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--d-steps", "2", "--ema-start", "1",
    ],
    "biggan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--d-steps", "2",
        "--ortho", "1e-4", "--ema-start", "0",
    ],
    "cascade": [
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--attention", "4", "--data.batch-size", "8",
        "--data.limit", "64", "--diffusion-steps", "40", "--sampling.steps", "2", "--train.steps", "4",
        "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "classifier": [
        "--channels", "8", "16", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "6",
        "--train.save-every", "2",
    ],
    "csgan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "dctransformer": [
        "--width", "8", "--heads", "2", "--value-layers", "1", "--chunk", "12", "--overlap", "4", "--data.batch-size", "8",
        "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "ddpm": [
        "--prediction", "eps", "--schedule", "linear",
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--data.batch-size", "8",
        "--data.limit", "64", "--diffusion-steps", "40", "--sampling.steps", "4", "--train.steps", "6",
        "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "diffusion_gan": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--mapping-layers", "2",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--r1-every", "2", "--t-min", "4", "--t-max", "16",
    ],
    "edm": [
        "--channels", "8", "--channel-mult", "1", "--attention", "8", "--data.batch-size", "8", "--data.limit", "64",
        "--sampling.steps", "2", "--train.steps", "6", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "flow_matching": [
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--data.batch-size", "8", "--data.limit", "64",
        "--sampling.steps", "2", "--train.steps", "6", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "gan": [
        "--width", "4", "--z-dim", "4", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4",
        "--train.save-every", "2", "--train.sample-every", "0", "--conditioning", "projection", "--critic-steps", "2",
    ],
    "glow": [
        "--steps", "1", "--width", "4", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4",
        "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2", "--dequantization", "variational",
    ],
    "guided": [
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--data.batch-size", "8", "--data.limit", "64",
        "--diffusion-steps", "40", "--sampling.steps", "4", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--warmup", "2", "--classifier-steps", "4", "--classifier-channels", "8", "16",
    ],
    "icgan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--neighbours", "5",
        "--instances", "16", "--feature-dim", "4", "--ema-start", "1",
    ],
    "image_text": [
        "--features", "8", "--channels", "8", "--text-width", "8", "--data.resolution", "16", "--data.batch-size", "8",
        "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2", "--warmup", "2",
    ],
    "improved_ddpm": [
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--data.batch-size", "8",
        "--data.limit", "64", "--diffusion-steps", "40", "--sampling.steps", "4", "--train.steps", "6",
        "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2", "--objective", "vlb",
    ],
    "inversion": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--mapping-layers", "2",
        "--channels", "4", "4", "4", "4", "--encoder", "e4e", "--gan-steps", "4", "--delta-from", "1", "--delta-every", "1",
        "--pool", "4", "--w-r1-every", "2", "--r1-every", "2", "--path-every", "2", "--data.batch-size", "8",
        "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "latent_diffusion": [
        "--first-channels", "8", "--channels", "8", "--channel-mult", "1", "--data.batch-size", "8", "--data.limit", "64",
        "--diffusion-steps", "40", "--sampling.steps", "2", "--train.steps", "4", "--prior-steps", "4",
        "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2", "--adversarial", "0.5",
        "--adversarial-from", "1",
    ],
    "logan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "ncsn": [
        "--channels", "4", "--levels", "3", "--data.batch-size", "8", "--data.limit", "64", "--sampling.steps-each", "2",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "ncp_vae": [
        "--channels", "4", "--latents", "2", "--groups", "1", "1", "--flows", "1", "--ncp-width", "4", "--ncp-blocks", "1",
        "--ncp-steps", "4", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--warmup", "2", "--sampling.proposals", "4", "--sampling.steps", "2",
    ],
    "pixelcnn": [
        "--channels", "4", "--layers", "1", "--hidden", "8", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "progan": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--first-steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "projected_gan": [
        "--width", "1", "--z-dim", "4", "--feature-size", "32", "--heads", "2", "--head-width", "4", "--mixing-width", "2",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--blur-sigma", "1",
    ],
    "r3gan": [
        "--width", "4", "--group-size", "4", "--z-dim", "4", "--embedding", "4", "--conditional", "--augment-p", "0.1", "0.5",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0",
    ],
    "sagan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "score_sde": [
        "--channels", "8", "--head-channels", "0", "--channel-mult", "1", "--data.batch-size", "8", "--data.limit", "64",
        "--sampling.steps", "40", "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2",
    ],
    "stylegan": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--mapping-layers", "2",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--first-steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0",
    ],
    "stylegan2": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--mapping-layers", "2",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--augment", "ada", "--ada-target", "-2", "--r1-every", "2",
        "--path-every", "2",
    ],
    "stylegan3": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--layers", "3", "--critical", "1",
        "--margin", "2", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--augment", "ada", "--ada-target", "-2", "--r1-every", "2", "--blur-sigma", "1",
        "--config", "r",
    ],
    "stylegan_xl": [
        "--channel-base", "32", "--channel-max", "4", "--z-dim", "4", "--w-dim", "4", "--stem-layers", "3", "--margin", "2",
        "--head-layers", "3", "--stem-steps", "4", "--feature-size", "32", "--heads", "2", "--head-width", "4",
        "--mixing-width", "2", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0",
    ],
    "tarflow": [
        "--patch", "4", "--width", "8", "--blocks", "2", "--layers", "1", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--warmup", "2", "--conditional",
    ],
    "unetgan": [
        "--width", "2", "--z-dim", "4", "--shared-dim", "4", "--data.batch-size", "8", "--data.limit", "64",
        "--train.steps", "4", "--train.save-every", "2", "--train.sample-every", "0", "--cutmix-warmup", "0",
    ],
    "vae": [
        "--widths", "16", "--latents", "3", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "6",
        "--train.scan", "1", "--train.save-every", "2", "--train.sample-every", "0",
    ],
    "vdvae": [
        "--encoder-layers", "8d8,1x1", "--decoder-layers", "1x1,8m1", "--width", "8", "--latents", "2", "--mixtures", "2",
        "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4", "--train.save-every", "2",
        "--train.sample-every", "0", "--warmup", "2",
    ],
    "vqvae": [
        "--channels", "8", "--block-channels", "4", "--code-size", "4", "--codes", "8", "--prior-channels", "4",
        "--prior-layers", "1", "--prior-steps", "4", "--data.batch-size", "8", "--data.limit", "64", "--train.steps", "4",
        "--train.save-every", "2", "--train.sample-every", "0",
    ],
}  # fmt: skip


def for_cpus(name, preset):
    """Whether an experiment's preset is for CPUs."""
    return preset in CPU or (name, preset) in CPU_TOO


def environment(devices=0):
    """The environment of a child process that imports jgen from here; with devices it sees so many of the CPU."""
    found = {**os.environ, "PYTHONPATH": str(ROOT)}
    if devices:
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    return found


def config(**changes):
    """DDPM on digits with a network of a few thousand weights; changes replace options, train__steps=3 nested ones."""
    small = parsed("ddpm")
    for name, value in changes.items():
        part, _, field = name.partition("__")
        if field and part != "sampling":
            small = replace(small, **{part: replace(getattr(small, part), **{field: value})})
        elif field:
            small = replace(small, sampling=changed(small.sampling, {field: value}))
        elif name == "sampling":
            small = replace(small, sampling=value)
        else:
            small = with_option(small, name, value)
    return small


def with_option(config, name, value):
    """A config with one option of its flat groups, or of its own, replaced."""
    if name in {f.name for f in fields(config)}:
        return replace(config, **{name: value})
    for group in (f.name for f in fields(config) if f.name not in ("data", "train", "mesh", "sampling")):
        inside = getattr(config, group)
        if hasattr(inside, name):
            return replace(config, **{group: replace(inside, **{name: value})})
    raise AttributeError(name)


def parsed(name, *flags):
    """The settings of an experiment without a preset, shrunk by its flags and changed by more, as the command line would."""
    return parse_config(module(name).Config(), [*FLAGS[name], *flags])


def stage(**changes):
    return ddpm.build(config(**changes)).stages[0]


def configured(module, name, *flags):
    """The digits preset of an experiment, shrunk, and changed by flags."""
    return parsed(name, *flags)


def stages(module, name, *flags):
    return module.build(configured(module, name, *flags)).stages


def shape_of(stage, **options):
    """The shape that sampling would give, without running it."""
    params, extra = shapes_of(stage)
    chosen = changed(stage.options, options)
    return jax.eval_shape(lambda p, e: stage.sample(p, e, image_keys(0, 3), chosen), params, extra).shape


def shapes_of(stage):
    """The shapes of a stage's fresh (params, extra)."""
    return jax.eval_shape(stage.init, jax.random.key(0), first_batch_shapes(stage))


def fresh(stage, seed=0):
    """Fresh (params, extra) of a stage."""
    batch = first_batch(stage, stage.open_source())
    return jax.jit(stage.init)(jax.random.key(seed), batch)


def moved(tree, scale, seed=0):
    """A tree of arrays with normals of this deviation added, in NumPy: jax compiles a program for each shape it draws."""
    random = np.random.default_rng(seed)
    return jax.tree.map(lambda v: v + np.asarray(scale * random.normal(size=v.shape), v.dtype), tree)


def conditional_stage(module, name, *flags):
    """The last stage of a model of classes that can be guided, and plausible weights of it."""
    conditional = name != "guided"  # which always is
    how = ["--condition", "class"] if name == "latent_diffusion" else ["--conditional", "--drop-label", "0.1"]
    stage = stages(module, name, *how * conditional, *flags)[-1]
    params, extra = fresh(stage)
    return stage, moved(params, 0.1), extra


def stored(name, folder, *flags):
    """A run of a tiny experiment, whose stages were begun and saved, each from the one before, but not trained."""
    config = resolved(parsed(name, *flags))
    folder.mkdir()
    write_config(folder, f"experiments.{name}", "digits", config)
    experiment, earlier = module(name).build(config), None
    for stage in experiment.stages:
        state = stage.create(jax.random.key(0), first_batch(stage, open_source(stage.data)), earlier)
        with Checkpoints(experiment.folder(folder, stage) / "checkpoints") as checkpoints:
            checkpoints.save(1, state.replace(step=jnp.int32(1)))
            checkpoints.wait()
        earlier = (state.averaged, state.extra)
    return folder


def module(name):
    return importlib.import_module(f"experiments.{name}")


def run(*args, cwd, check=True, env=None, timeout=300):
    """A command in a process of its own, as a user runs it."""
    done = subprocess.run(
        [sys.executable, *map(str, args)], cwd=cwd, capture_output=True, text=True, timeout=timeout,
        env={**environment(), **(env or {})},
    )  # fmt: skip
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def lpips_files(folder):
    """Names of two files, trunk and heads, of an LPIPS with a small VGG16 of random weights."""
    random, before, index = np.random.default_rng(0), 3, 0
    trunk, heads = {}, {}
    for level, convolutions in enumerate((2, 2, 3, 3, 3)):
        for _ in range(convolutions):
            trunk[f"features.{index}.weight"] = random.normal(size=(4, before, 3, 3)).astype(np.float32)
            trunk[f"features.{index}.bias"] = random.normal(size=4).astype(np.float32)
            before, index = 4, index + 2
        index += 1
        heads[f"lin{level}.model.1.weight"] = random.uniform(size=(1, 4, 1, 1)).astype(np.float32)
    names = str(folder / "trunk.npz"), str(folder / "heads.npz")
    for name, weights in zip(names, (trunk, heads)):
        np.savez(name, **weights)
    return names
