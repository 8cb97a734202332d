"""What the tests of data share."""

import pytest

from tests.data.sets import write_folder


@pytest.fixture
def folder(tmp_path):
    return write_folder(tmp_path)
