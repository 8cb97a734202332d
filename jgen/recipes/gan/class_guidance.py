"""Classifier guidance of a generator, as StyleGAN-XL has it (arXiv:2202.00273): a classifier's loss joins its own."""

import jax
import jax.numpy as jnp

from jgen.config import DataConfig
from jgen.config.stylegan_xl import StyleGANXLConfig
from jgen.errors import UserError
from jgen.metrics.extract import SHIPPED, Extractor, open_extractor
from jgen.models.gan import progan
from jgen.objectives.adversarial import GAN, generator_loss
from jgen.objectives.augmentation import Augmentation
from jgen.objectives.gan import Adversarial
from jgen.objectives.gan_conditional import cross_entropy
from jgen.objectives.stylegan import Draws
from jgen.recipes.gan.backbones import replaceable
from jgen.recipes.gan.images import cropped, shape_of
from jgen.types import Array, Batch, Condition, Extra, Key, LossFn, Metrics, Params


def _classifier(own: StyleGANXLConfig, data: DataConfig) -> Extractor:
    """The classifier of guidance. Raises UserError for a set without one, and for one of other classes or channels."""
    name = own.guidance_classifier
    if not name and f"{data.name}_cnn" not in SHIPPED:
        raise UserError(
            f"guidance={own.guidance}: jgen has no classifier of {data.name}; train one, python -m experiments.classifier, and "
            "give the file of python -m jgen.metrics export as --guidance-classifier cnn:FILE"
        )
    found = open_extractor(name, data.name)
    try:
        logits = jax.eval_shape(found.apply, found.variables, jax.ShapeDtypeStruct((1, *data.shape), jnp.float32))[1]
    except UserError as error:
        raise UserError(f"guidance_classifier={name}: is of other images than {data.name}'s {list(data.shape)}") from error
    classes = 0 if logits is None else logits.shape[1]
    if classes != data.num_classes:
        raise UserError(f"guidance_classifier={name}: has {classes} classes, {data.name} has {data.num_classes}")
    return found


def guided(form: GAN, adversarial: Adversarial, augment: Augmentation, own: StyleGANXLConfig, data: DataConfig) -> LossFn:
    """G's loss, and a weight times the classifier's cross-entropy of its images. Raises UserError as `_classifier` does."""
    if (file := own.guidance_classifier.partition(":")[2]) and replaceable(file):
        return generator_loss(form, adversarial, augment)  # of a run that is loaded, and not trained
    weight, classifier = own.guidance, _classifier(own, data)

    def loss(params: Params, extra: Extra, key: Key, batch: Batch) -> tuple[Array, tuple[Extra, Metrics]]:
        made: list[Array] = []

        def generate(params: Params, extra: Extra, z: Draws, condition: Condition, /, *, train: bool) -> tuple[Array, Extra]:
            images, moved = form.generate(params, extra, z, condition, train=train)
            made.append(images)
            return images, moved

        inner = generator_loss(form._replace(generate=generate), adversarial, augment)
        value, (state, metrics) = inner(params, extra, key, batch)
        images = cropped(progan.enlarge(made[0], shape_of(data, False).side), data.shape[0])
        logits = classifier.apply(classifier.variables, (images + 1) * 127.5)[1]
        assert logits is not None
        guidance = cross_entropy(logits, batch["label"])
        return value + weight * guidance, (state, {**metrics, "guidance": guidance})

    return loss
