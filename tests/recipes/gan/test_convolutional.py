"""Convolutional GANs: what augments the images that D sees, and what adapts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jgen.config import changed
from jgen.config.gan import ConvGANConfig
from jgen.data import resolve
from jgen.errors import UserError
from jgen.recipes.gan.convolutional import augmentation_of, conv_gan
from jgen.sharding import make_mesh
from jgen.train.compiled import compile_stage
from jgen.train.stage import first_batch
from jgen.types import Condition
from tests import tiny


@pytest.mark.slow
@pytest.mark.parametrize("augment, entry", [("ada", "ada"), ("diffusion", "diffusion")])
def test_what_adapts_moves_with_the_signs_of_the_logits(augment, entry):
    """A target below every sign moves it up, at the pace of adapt_kimg."""
    flags = ["--augment", augment, "--adapt-target", "-2", "--adapt-kimg", "1"]
    (stage,) = tiny.stages(tiny.module("gan"), "gan", *flags)
    compiled = compile_stage(stage, make_mesh())
    batch = first_batch(stage, stage.open_source())
    state = compiled.create(jax.random.key(1), batch)
    size = len(batch["image"])
    for _ in range(4):  # batches between two moves
        state, metrics = compiled.step(state, jax.random.key(0), batch)
    assert np.isfinite(float(metrics["d/loss"]))
    np.testing.assert_allclose(state.extra[entry]["p"], 4 * size / 1000, rtol=1e-5)


def test_a_discriminator_of_diffused_images_sees_their_time_and_of_others_the_time_0():
    data = resolve(tiny.configured(tiny.module("gan"), "gan").data)
    config = changed(ConvGANConfig(width=4, z_dim=4), {"augment": "diffusion"})
    form = conv_gan(config, data, augment=augmentation_of(config))
    params, extra = jax.jit(form.init)(jax.random.key(0), {})
    assert {"g", "diffusion"} == set(extra)
    params = tiny.moved(params, 0.3)
    images = jax.random.normal(jax.random.key(1), (2, *data.shape))

    def logits(time):
        return form.discriminate(params, extra, images, Condition(augment=time), train=True)[0].logits

    none, zero, late = logits(None), logits(jnp.zeros((2, 1))), logits(jnp.full((2, 1), 500.0))
    np.testing.assert_allclose(none, zero, rtol=1e-6)
    assert np.abs(late - zero).min() > 1e-4


@pytest.mark.parametrize("flags", [{"adapt_target": 0.5}, {"augment": "diffaug", "adapt_kimg": 5.0}])
def test_what_does_not_adapt_takes_no_pace(flags):
    (option,) = set(flags) - {"augment"}
    with pytest.raises(UserError, match=f"{option}=.*: has no effect with --augment"):
        augmentation_of(changed(ConvGANConfig(), flags))
