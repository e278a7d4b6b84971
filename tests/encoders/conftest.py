"""A checkpoint that a test may break."""

import shutil

import pytest
from harness.host import GOLDEN


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of the tiny checkpoint, under models/parts2whole."""
    root = folders / "models" / "parts2whole" / "copy"
    shutil.copytree(GOLDEN / "checkpoint", root)
    yield root
    shutil.rmtree(root)
