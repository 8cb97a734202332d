"""Guidance by a classifier (Dhariwal & Nichol 2021, arXiv:2105.05233) and without one (Ho & Salimans 2022, arXiv:2207.12598).

    python -m experiments.guided                            # digits, 8x8: under 3 minutes on 2 CPU cores
    python -m experiments.guided sample --label 7 --guidance 3
    python -m experiments.guided sample --classifier-scale 2 --guidance 1
    python -m experiments.guided evaluate                   # agreement, precision and recall by scale
    python -m experiments.guided --preset fashion_mnist     # 28x28: at most 30 minutes on 2 CPU cores
    python -m experiments.guided --preset imagenet64        # for accelerators

Two stages, one command: a class-conditional DDPM that is trained without its label now and then, and a classifier of noisy
images. Samples are guided by the model itself (--guidance), by the classifier (--classifier-scale), or both. Target of the
imagenet64 preset, which learns its variances: FID 2.07, without guidance (Dhariwal & Nichol, table 5; with a classifier they
report 2.97 at 128x128). It is told all labels; classifier-free guidance needs --drop-label 0.1, and reports 1.55 at 64x64 with
w = 0.1, which is --guidance 1.1. Target of fashion_mnist: a held-out classifier agrees with 95 % of the labels asked for.
"""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import jgen
from experiments import classifier, ddpm
from experiments._diffusion import FASHION_MNIST, ChainName, Prediction, paper_steps
from jgen.config import DataConfig, TrainConfig

if TYPE_CHECKING:
    from jgen.experiment import Experiment


@dataclass(frozen=True)
class Sampling(ddpm.Sampling):
    guidance: float = 2.0
    """Classifier-free guidance, u + guidance (c - u): 1 is without."""
    classifier: str = ""
    """A run of experiments.classifier with --noisy, in place of the classifier that this experiment trains."""


@dataclass(frozen=True)
class Config(ddpm.Config):
    sampling: Sampling = Sampling()
    schedule: ChainName = "cosine"
    """How the noise grows along the chain."""
    prediction: Prediction = "v"
    """What the network predicts."""
    conditional: bool = True
    drop_label: float = 0.1
    classifier_steps: int = 400
    """Of the noisy classifier."""
    classifier_network: Literal["cnn", "adm"] = "cnn"
    """A small residual network, or ADM's, the descending half of its U-Net."""
    classifier_channels: tuple[int, ...] = (32, 64)
    classifier_stride: int = 1
    classifier_depth: int = 2
    """Of adm: residual blocks a level, with attention where the model has it."""
    classifier_learning_rate: float = 3e-3
    classifier_weight_decay: float = 0.02


PRESETS = {
    "digits": Config(),
    "fashion_mnist": Config(
        **{**FASHION_MNIST, "train": TrainConfig(steps=2400, save_every=400, sample_every=400)},
        sampling=Sampling(guidance=7.0),
        classifier_steps=1500,
        classifier_stride=2,
    ),
    "imagenet64": Config(
        data=DataConfig("imagenet_resized/64x64", batch_size=2048, flip=True),
        train=paper_steps(540_000),
        sampling=Sampling("ddpm", steps=250, guidance=1.0, variance="learned_range"),
        learn_variance=True,
        channels=192,
        scale_shift_norm=True,
        resblock_updown=True,
        channel_mult=(1, 2, 3, 4),
        num_res_blocks=3,
        attention=(2, 4, 8),
        dropout=0.1,
        prediction="eps",
        learning_rate=3e-4,
        warmup=0,
        final_learning_rate=1.0,
        clip=0.0,
        ema=0.9999,
        drop_label=0.0,
        classifier_steps=300_000,
        classifier_network="adm",
        classifier_channels=(128, 256, 384, 512),
        classifier_depth=4,
        classifier_learning_rate=3e-4,
        classifier_weight_decay=0.05,
    ),
}

SCALES = (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)
"""Of classifier-free guidance in `evaluate`."""
CLASSIFIER_SCALES = (1.0, 3.0, 10.0)
"""Of the classifier's gradient there."""


def of_classifier(config: Config) -> classifier.Config:
    """The settings of the second stage."""
    return classifier.Config(
        data=config.data,
        train=replace(config.train, steps=config.classifier_steps, sample_every=0, dtype="float32", remat=False),
        network=config.classifier_network,
        channels=config.classifier_channels,
        stride=config.classifier_stride,
        depth=config.classifier_depth,
        attention=config.attention,
        dropout=0.0 if config.classifier_network == "adm" else 0.1,
        learning_rate=config.classifier_learning_rate,
        warmup=100,
        weight_decay=config.classifier_weight_decay,
        noisy=True,
        schedule=config.schedule,
        diffusion_steps=config.diffusion_steps,
    )


def curve(config: Config, sample):
    """The evaluation: by scale, how often the feature network's own classifier agrees with the label asked for, and the
    precision (fidelity) and recall (diversity) of the samples against as many held-out images."""
    import jax
    import numpy as np

    from experiments._observer import Observer, held_out, whole
    from jgen import samplers
    from jgen.metrics.neighbours import manifold

    def evaluate(params, extra, key, batches, count):
        observer, images = Observer(config.data.name), held_out(batches, count)
        real, found = observer.see(images).features, {}
        classes = config.data.num_classes
        asked = np.concatenate([whole(samplers.class_labels(keys, -1, classes)) for keys in observer.keys(key, images)])
        scales = SCALES if config.drop_label else (1.0,)
        runs = [(f"guidance={s:g}", dict(guidance=s, classifier_scale=0.0)) for s in scales]
        if "classifier" in params:
            runs += [(f"classifier_scale={s:g}", dict(guidance=1.0, classifier_scale=s)) for s in CLASSIFIER_SCALES]
        for name, changes in runs:
            options = replace(config.sampling, label=-1, **changes)
            draw = jax.jit(lambda params, extra, keys, options=options: sample(params, extra, keys, options))
            fake = observer.samples(lambda keys, draw=draw: draw(params, extra, keys), key, images)
            result = manifold(real, fake.features, 3)
            found[f"agreement at {name}"] = np.mean(fake.logits.argmax(-1) == asked)
            found[f"precision at {name}"] = result.precision
            found[f"recall at {name}"] = result.recall
        return found

    return evaluate


def build(config: Config) -> "Experiment":
    import jax.numpy as jnp

    from experiments._observer import has_classifier
    from jgen.data import resolve
    from jgen.errors import UserError
    from jgen.experiment import Experiment
    from jgen.train import Phase
    from jgen.train.rates import ramped

    config = replace(config, data=resolve(config.data))
    if not config.conditional:
        raise UserError("conditional=False: this experiment guides a model of classes; see experiments.ddpm")
    own = of_classifier(config)
    sample = ddpm.sampler(config, own)
    first = ddpm.stage(
        config, "model", ddpm.simple_objective(config), lambda apply: ddpm.with_bound(config, ddpm.loss_by_time(config, apply))
    )
    own_judge = bool(config.sampling.classifier_scale) and not config.sampling.classifier
    options = replace(config.sampling, classifier_scale=0.0) if own_judge else config.sampling  # there is none yet
    first = replace(first, sample=sample, options=options, on_request=ddpm.editing(config, own))
    judge, loss = classifier.network(own), classifier.objective(own, "classifier")

    def init(key):
        params, extra = first.init(key)
        made = judge.init(key, jnp.zeros((1, *config.data.shape)), jnp.zeros((1,)))["params"]
        return {**params, "classifier": made}, extra

    def begin(params, extra, fresh, fresh_extra):
        """The model as it was trained, and a fresh classifier."""
        return {**fresh, "net": params["net"]}, extra

    by_scale = ddpm.with_bound(config, curve(config, sample))
    second = replace(
        first,
        name="classifier",
        train=own.train,
        init=init,
        begin=begin,
        phases=[Phase("classifier", loss(train=True))],
        optimizers={"classifier": classifier.optimizer(own)},
        ema={"classifier": ramped(0.998)},
        supports=frozenset(),
        validate=loss(train=False),
        options=config.sampling,
        evaluate=by_scale if has_classifier(config.data.name) else first.evaluate,
    )
    return Experiment([first, second])


if __name__ == "__main__":
    jgen.main(Config, build, PRESETS)
