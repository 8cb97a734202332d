"""DCTransformer's stage refuses options that don't fit the images or each other."""

import pytest

from tests import tiny


@pytest.mark.parametrize(
    "flags,message",
    [
        (["--block", "3"], "block=3: must divide the sides of images of 8x8"),
        (["--overlap", "12"], "overlap=12: must be below chunk=12"),
        (["--length", "65"], "length=65: images have 64 coefficients"),
        (["--heads", "3"], "heads=3: must divide .* width=8"),
        (["--patch", "3"], "patch=3, heads=2: must divide the 2x2 blocks of an image and width=8"),
        (["--quality", "0"], "quality=0: must be from 1 to 100"),
        (["--data.dequantize"], "data.dequantize=True: the likelihood is of the quantised coefficients"),
    ],
)
def test_bad_options_are_one_line(flags, message):
    with pytest.raises(ValueError, match=message) as error:
        tiny.stages(tiny.module("dctransformer"), "dctransformer", *flags)
    assert "\n" not in str(error.value)
