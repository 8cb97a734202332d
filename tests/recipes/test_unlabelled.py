"""Images without labels under every experiment: it trains, or one line names what needs labels."""

import numpy as np
import pytest
from PIL import Image

from jgen.app.parsing import parse_config
from jgen.errors import UserError
from tests import tiny
from tests.shapes import by_shape

pytestmark = pytest.mark.slow

ASKS = {"guided": "conditional=True", "classifier": "data.name=", "adcgan": "conditional=True", "image_text": "data.name="}
"""Those that need labels, or captions, whatever their options, and what the line says."""
TURNED_OFF = {
    "biggan": ["--no-conditional"], "logan": ["--no-conditional"], "unetgan": ["--no-conditional"],
    "sagan": ["--no-conditional", "--hierarchical"], "stylegan_xl": ["--no-conditional"],
}  # fmt: skip
"""Those of classes by default, and what makes them do without."""
TURNED_ON = {
    "gan": ["--conditioning", "projection"], "ddpm": ["--conditional"], "edm": ["--conditional"],
    "flow_matching": ["--conditional"], "icgan": ["--conditional"], "improved_ddpm": ["--conditional"],
    "latent_diffusion": ["--condition", "class"], "pixelcnn": ["--conditional"], "progan": ["--conditional"],
    "stylegan": ["--conditional"], "stylegan2": ["--conditional"], "vqvae": ["--conditional"],
}  # fmt: skip
SIZES = {
    "cascade": ["--sizes", "4", "16"], **{name: ["--z-dim", "30"] for name in ("biggan", "csgan", "logan", "sagan", "unetgan")},
    "icgan": ["--z-dim", "30", "--instances", "16"],
    "vdvae": ["--encoder-layers", "16x1,16d2,8x1,8d8,1x1", "--decoder-layers", "1x1,8m1,8x1,16m8,16x1"],
}  # fmt: skip
"""What 16x16 images need."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Forty grey images of no class."""
    path, random = tmp_path_factory.mktemp("plain"), np.random.default_rng(0)
    for i in range(40):
        Image.fromarray(random.integers(0, 255, (16, 16), np.uint8)).save(path / f"{i}.png")
    return path


def config(name, folder, *flags):
    """An experiment's own options, with sizes that trace fast where it must have some."""
    data = ["--data.name", f"folder:{folder}", "--data.resolution", "16"]
    return parse_config(tiny.module(name).Config(), [*SIZES.get(name, []), *data, *flags])


@pytest.mark.parametrize("name", tiny.EXPERIMENTS)
def test_a_set_without_labels_trains_or_is_refused_by_default(name, folder):
    asks = ASKS | dict.fromkeys(TURNED_OFF, "conditional=True")
    if name not in asks:
        assert by_shape(tiny.module(name), config(name, folder), samples=False)
        return
    with pytest.raises(UserError, match=f"^{asks[name]}.*has no (labels|captions)") as refused:
        by_shape(tiny.module(name), config(name, folder))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", TURNED_OFF)
def test_one_of_classes_trains_without(name, folder):
    assert by_shape(tiny.module(name), config(name, folder, *TURNED_OFF[name]), samples=False)


@pytest.mark.parametrize("name", TURNED_ON)
def test_an_option_that_needs_labels_is_named(name, folder):
    on = TURNED_ON[name]
    option = on[0].removeprefix("--") + "=" + (on[1] if len(on) > 1 else "True")
    with pytest.raises(UserError, match=f"^{option}: .*has no labels$"):
        by_shape(tiny.module(name), config(name, folder, *on))
