"""EDM's augmentation: where pixels go, the network's condition, and how often."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import edm
from jgen.objectives import edm_augment
from tests import tiny


def spot(shape, x, y):
    """An image [1, H, W, 1] with a soft spot at (x, y) pixels right and down from the centre."""
    down, right = (np.arange(n) - (n - 1) / 2 for n in shape)
    near = np.exp(-((right[None] - x) ** 2 + (down[:, None] - y) ** 2) / 8)
    return near[None, :, :, None].astype(np.float32)


def centre(image):
    """(x, y) of the brightness's centre."""
    down, right = (np.arange(n) - (n - 1) / 2 for n in image.shape[1:3])
    grey = np.asarray(image)[0, :, :, 0]
    return (grey * right).sum() / grey.sum(), (grey * down[:, None]).sum() / grey.sum()


@pytest.mark.parametrize("seed", range(4))
def test_edm_s_augmentation_moves_a_spot_as_its_numbers_say(seed):
    """As complex numbers, up being imaginary: larger, turned, stretched along an axis, then shifted."""
    random = np.random.default_rng(seed)
    mirror, over = (np.float32(random.integers(2)) for _ in range(2))
    scale, stretch, right, down = random.normal(size=4) * 0.5
    angle, axis = random.uniform(-np.pi, np.pi, 2)
    amounts = edm_augment.Amounts(*(jnp.float32(v)[None] for v in (mirror, over, scale, angle, stretch, axis, right, down)))
    place = complex(4, 3)
    image = spot((48, 64), place.real, -place.imag)
    place = complex(place.real * (1 - 2 * mirror), place.imag * (1 - 2 * over))
    place *= 2 ** (0.2 * scale) * np.exp(1j * angle)
    along = place * np.exp(-1j * axis)
    along = complex(along.real * 2 ** (0.2 * stretch), along.imag / 2 ** (0.2 * stretch))
    place = along * np.exp(1j * axis) + complex(right * 64, -down * 48) / 8
    x, y = centre(edm_augment.augment(jnp.asarray(image), amounts))
    # The filters around the resampling are lopsided, so what is turned is up to a seventh of a pixel off.
    np.testing.assert_allclose([x, y], [place.real, -place.imag], atol=0.15)
    labels = np.asarray(edm_augment.augment_labels(amounts))[0]
    turned = [np.cos(angle) - 1, np.sin(angle), stretch * np.cos(axis), stretch * np.sin(axis)]
    np.testing.assert_allclose(labels, [mirror, over, scale, *turned, right, down], rtol=1e-4, atol=1e-5)


def test_edm_s_augmentation_is_on_as_often_as_asked():
    amounts = edm_augment.draw(jax.random.key(0), 20_000, 0.3)
    share = {name: float(np.mean(np.asarray(v) != 0)) for name, v in amounts._asdict().items()}
    wanted = dict(mirror=0.5, upside_down=0.15, scale=0.3, angle=0.3, stretch=0.3, axis=0.5, right=0.3, down=0.3)
    assert share == pytest.approx(wanted, abs=0.02)
    np.testing.assert_array_equal(amounts.right != 0, amounts.down != 0)
    assert np.std(amounts.scale[amounts.scale != 0]) == pytest.approx(1, abs=0.05)
    assert np.abs(amounts.angle).max() == pytest.approx(np.pi, abs=0.01)
    still = edm_augment.draw(jax.random.key(0), 100, 0.0)
    np.testing.assert_array_equal(edm_augment.augment_labels(still)[:, 1:], 0)


def test_a_network_is_told_how_its_images_were_augmented():
    stage = tiny.stages(edm, "edm", "--augment", "0.5")[0]
    params, extra = tiny.fresh(stage)
    assert params["net"]["map_augment"]["kernel"].shape[0] == edm_augment.LABELS
    batch = {"image": jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 8, 8, 1)), jnp.float32)}
    # The last layer begins at zero: the network's condition is seen once it does not.
    params = jax.tree.map(lambda v: v + 0.05, params)
    step = jax.jit(jax.grad(lambda p, loss=stage.phases[0].loss: loss(p, extra, jax.random.key(1), batch)[0]))
    assert np.abs(step(params)["net"]["map_augment"]["kernel"]).max() > 0
    held_out = jax.jit(jax.grad(lambda p: stage.validate(p, extra, jax.random.key(1), batch)[0]))(params)
    assert np.abs(held_out["net"]["map_augment"]["kernel"]).max() == 0
    with pytest.raises(ValueError, match="augment=1.5: must be from 0 to 1"):
        tiny.stages(edm, "edm", "--augment", "1.5")
