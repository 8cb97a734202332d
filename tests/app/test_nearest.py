"""Samples beside the training images nearest to them."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jgen.app.load import load
from jgen.app.nearest import NEIGHBOURS, nearest_images
from jgen.app.sampling import picture
from jgen.config.sampling import Animation
from jgen.data import open_source
from jgen.errors import UserError
from jgen.pictures import tiles
from tests import tiny


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tiny.stored("gan", tmp_path_factory.mktemp("gan") / "run")
    return load(folder)


def test_a_copy_stands_beside_what_it_copies(run):
    source = open_source(run.stage.data)
    known = np.stack([source[i]["image"] for i in range(16)]).astype(np.float32) / 127.5 - 1

    def copied(params, extra, keys, options):
        return known[: len(keys)]

    rows = nearest_images(replace(run, stage=replace(run.stage, sample=copied)), run.stage.options, 5, 0)
    assert rows.shape == (5, 1 + NEIGHBOURS, *source.shape)
    np.testing.assert_allclose(rows[:, 0], known[:5], atol=1e-6)
    np.testing.assert_allclose(rows[:, 1], known[:5], atol=1e-6)
    assert all(np.abs(rows[:, k] - known[:5]).max() > 0.1 for k in range(2, 1 + NEIGHBOURS))


def test_the_picture_has_a_row_for_each_sample(run, tmp_path):
    out = tmp_path / "near.png"
    picture(run.folder, "nearest", run.stage.options, 0, str(out), None, Animation(), 3, ["num"])
    h, w, _ = run.stage.data.shape
    assert len(tiles(Image.open(out), h, w)) == 3 * (1 + NEIGHBOURS)
    with pytest.raises(UserError, match="frames: has no effect on --picture nearest"):
        picture(run.folder, "nearest", run.stage.options, 0, str(out), None, Animation(), 3, ["frames"])
    with pytest.raises(UserError, match="num=65: this picture shows from 1 to 64 samples"):
        picture(run.folder, "nearest", run.stage.options, 0, str(out), None, Animation(), 65, ["num"])
