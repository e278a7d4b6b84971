"""Label maps of any size. That they tell the parts is tested with the human parsers."""

import pytest
import torch
from harness.memory import MIB, most_memory
from harness.workbench import run
from parts2whole.pictures.label_maps import SCHEMES, _voc_palette, read_label_map


def test_a_large_label_map_takes_memory_for_itself_only():
    """2000x2000 in colours took 4.3 GB."""
    colours = torch.tensor(_voc_palette(18)) / 255.0
    label_map = colours[torch.arange(2000 * 2000).reshape(1, 2000, 2000) % 18]
    photo = torch.rand(1, 2000, 2000, 3)

    def work():
        run("Parts2WholeLabelMapToParts", image=photo, label_map=label_map, scheme="ATR", smallest=0.0)

    assert most_memory(work) < 500 * MIB


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_number_is_read_from_every_kind(scheme):
    numbers = torch.randint(len(SCHEMES[scheme]), (2, 30, 20))
    numbers[0, 0, 0] = len(SCHEMES[scheme]) - 1
    grey = numbers[..., None].expand(-1, -1, -1, 3) / 255.0
    colours = torch.tensor(_voc_palette(20))[numbers] / 255.0
    assert torch.equal(read_label_map(grey, scheme), numbers) and torch.equal(read_label_map(colours, scheme), numbers)


def test_the_first_pixel_of_another_colour_is_named():
    label_map = torch.zeros(2, 8, 8, 3)
    label_map[1, 3, 5] = label_map[1, 4, 1] = torch.tensor([1.0, 0.0, 100 / 255])
    with pytest.raises(ValueError, match=r"the colour \[255, 0, 100\] at row 3, column 5: expected the class numbers 0..17 of ATR"):
        read_label_map(label_map, "ATR")
