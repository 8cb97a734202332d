"""Settings of alias-free and projected GANs that can't be are refused by name."""

import pytest

from jgen.errors import UserError
from tests import tiny


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, flags, message",
    [
        ("stylegan3", ["--layers", "1"], "num_layers=1: must be above num_critical=1"),
        ("stylegan3", ["--channel-base", "4"], "channel_base=.*: must be at least"),
        ("stylegan3", ["--margin", "-1"], "margin=-1"),
        ("stylegan3", ["--generator", "resnet"], "generator=resnet: has no effect on StyleGAN3's; leave it out"),
        ("diffusion_gan", ["--t-min", "9", "--t-max", "8"], "t_min=9, t_max=8: must be at least 1, and in order"),
        ("diffusion_gan", ["--beta-start", "0.5", "--beta-end", "0.1"], "beta_start=0.5, beta_end=0.1"),
        ("projected_gan", ["--feature-size", "16"], "feature_size=16"),
        ("projected_gan", ["--feature-size", "40"], "feature_size=40: must be a multiple of 32"),
        ("projected_gan", ["--heads", "4"], "at least 4x4 are needed"),
        ("stylegan_xl", ["--stem-side", "12"], "stem_side=12: must double to the images' 16"),
        ("stylegan_xl", ["--head-layers", "2"], "num_layers=2: must be above"),
        ("stylegan_xl", ["--guidance", "1", "--no-conditional"], "guidance=1.0: is by the class, so needs --conditional"),
    ],
)
def test_settings_that_cannot_be_are_refused(name, flags, message):
    def build():
        return [tiny.shapes_of(stage) for stage in tiny.module(name).build(tiny.parsed(name, *flags)).stages]

    with pytest.raises(UserError, match=message):
        build()
