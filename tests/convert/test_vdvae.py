"""openai/vdvae's configurations: those of hps.py are enough, and what is missing is named."""

import numpy as np
import pytest

from jgen.convert import vdvae
from jgen.errors import UserError

CIFAR10 = dict(
    dataset="cifar10", width=8, zdim=2, lr=0.0002, wd=0.01, warmup_iters=100, n_batch=16, ema_rate=0.9999,
    dec_blocks="1x1,32m1", enc_blocks="32d32,1x1", port=29500, hparam_sets="cifar10", temperature=1.0,
)  # fmt: skip


def test_a_configuration_of_hps_is_enough():
    with pytest.raises(UserError, match="weights do not match the network: missing"):
        vdvae.vdvae({}, **CIFAR10)
    with pytest.raises(UserError, match="image_size, image_channels: missing in the options of VDVAE"):
        vdvae.vdvae({}, **{**CIFAR10, "dataset": "birds"})
    with pytest.raises(UserError, match=r"dec_blcks: no option of VDVAE \(did you mean dec_blocks"):
        vdvae.vdvae({}, **CIFAR10, dec_blcks="1x1")


def test_pixels_are_standardised_by_the_statistics_of_each_set():
    """openai/vdvae's data.py, of FFHQ at 1024 in [0, 1]: mean 0.4387, deviation 0.2743."""
    np.testing.assert_allclose(vdvae.INPUT["ffhq_1024"], (0.4387 * 255, 0.2743 * 255), rtol=1e-6)
    assert set(vdvae.INPUT) == set(vdvae.SIDES)
