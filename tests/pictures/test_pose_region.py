"""Regions of the result by the pose."""

import time

import pytest
import torch
from harness.workbench import run
from parts2whole.pictures.part import LABELS
from parts2whole.pictures.pose_region import INDICES


def iuv(rows: list[int], width=10):
    """A pose picture with one part index for each row, and other values in U and V."""
    image = torch.rand(1, len(rows), width, 3)
    image[0, ..., 2] = torch.tensor(rows)[:, None] / 255
    return image


@pytest.mark.parametrize("label, rows", [
    ("face", [23, 24]), ("hair or headwear", [23, 24]), ("upper body clothes", [1, 2, *range(15, 23)]),
    ("lower body clothes", [*range(7, 15)]), ("whole body clothes", [1, 2, *range(7, 23)]), ("shoes", [5, 6]),
])
def test_the_parts_of_the_body(label, rows):
    region = run("Parts2WholePoseRegion", image=iuv(list(range(25))), label=label, grow=0.0)
    assert region.shape == (1, 25, 10)
    assert region[0, :, 0].nonzero().flatten().tolist() == rows and region.eq(region[..., :1]).all()


def test_every_label_has_a_region():
    assert list(INDICES) == list(LABELS)


def test_grow():
    image = torch.zeros(2, 50, 40, 3)
    image[1, 25, 20, 2] = 5 / 255
    region = run("Parts2WholePoseRegion", image=image, label="shoes", grow=0.1)
    expected = torch.zeros(2, 50, 40)
    expected[1, 20:31, 15:26] = 1
    assert torch.equal(region, expected)


def test_the_cost_does_not_grow_with_the_distance():
    image = torch.zeros(1, 1500, 1000, 3)

    def cost(grow):
        begin = time.process_time()
        run("Parts2WholePoseRegion", image=image, label="shoes", grow=grow)
        return time.process_time() - begin

    cost(0.01)
    assert cost(1.0) < 5 * cost(0.01) + 0.2


def test_a_picture_that_is_not_raw_iuv_is_refused():
    with pytest.raises(ValueError, match="is another kind of picture, not raw IUV.*paint the region as a MASK"):
        run("Parts2WholePoseRegion", image=torch.ones(1, 8, 8, 3), label="shoes", grow=0.0)
