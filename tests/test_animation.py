"""Moving pictures: every kind is read back by Pillow with its frames and their times."""

import numpy as np
import pytest
from PIL import Image

from jgen.animation import save_animation
from jgen.errors import UserError


def read(path):
    """(frames uint8 [T, H, W, 3], milliseconds of each)."""
    frames, durations = [], []
    with Image.open(path) as picture:
        for i in range(getattr(picture, "n_frames", 1)):
            picture.seek(i)
            frames.append(np.asarray(picture.convert("RGB")))
            durations.append(picture.info.get("duration", 0))
    return np.stack(frames), durations


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".apng"])
def test_frames_come_back(tmp_path, suffix, channels):
    levels = np.random.default_rng(0).choice([0, 128, 255], (5, 6, 7, channels)).astype(np.uint8)
    save_animation(tmp_path / f"a{suffix}", levels, fps=25)
    frames, durations = read(tmp_path / f"a{suffix}")
    np.testing.assert_array_equal(frames, np.broadcast_to(levels, (5, 6, 7, 3)))
    assert sum(durations) == pytest.approx(200, abs=1)


def test_a_rate_that_is_no_whole_number_of_hundredths_keeps_the_whole_time(tmp_path):
    save_animation(tmp_path / "a.gif", np.arange(30, dtype=np.uint8)[:, None, None, None] * np.ones((1, 4, 4, 1), np.uint8), 30)
    assert sum(read(tmp_path / "a.gif")[1]) == 1000


@pytest.mark.parametrize(
    "path, frames, fps, says",
    [
        ("a.jpg", np.zeros((2, 4, 4, 3), np.uint8), 10, "must end in"),
        ("a.gif", np.zeros((2, 4, 4, 3), np.float32), 10, "float32"),
        ("a.gif", np.zeros((4, 4, 3), np.uint8), 10, "must be uint8"),
        ("a.gif", np.zeros((0, 4, 4, 3), np.uint8), 10, "must be uint8"),
        ("a.gif", np.zeros((2, 4, 4, 3), np.uint8), 0, "fps=0"),
    ],
)
def test_bad_input_is_named(tmp_path, path, frames, fps, says):
    with pytest.raises(UserError, match=says):
        save_animation(tmp_path / path, frames, fps)
