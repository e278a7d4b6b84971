"""Sheets of pictures of any shape and number: what they take in memory, and what is refused."""

from dataclasses import dataclass

import pytest
import torch
from harness.memory import MIB, most_memory
from parts2whole.pictures.outfits import cross
from parts2whole.pictures.part import LabelledPart, make_part
from parts2whole.sheets.attribution_sheet import attribution_sheet
from parts2whole.sheets.outfit_sheet import outfit_sheet
from parts2whole.sheets.parts_sheet import TILE, parts_sheet
from parts2whole.sheets.sheet import GAP, LINE, WIDEST

SHAPES = [(1, 8000), (2, 2000), (1, 100_000), (4000, 1)]


def part(label="face", shape=(32, 32), batch=1):
    return LabelledPart(make_part(label, torch.full((batch, *shape, 3), 0.5)), torch.zeros(1, 77, 8), None)


def grid(rows, columns):
    return cross([(row,) for row in rows], [(column,) for column in columns])[0]


@dataclass
class Recorded:
    """What the sheet reads of an Attribution."""

    names: tuple[str, ...]
    by_step: dict[float, torch.Tensor]


def recorded(*labels):
    return Recorded(("itself", *labels, "removed"), {1.0: torch.rand(len(labels) + 2)})


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_thin_pictures_take_the_memory_of_a_box(shape):
    thin, picture = part(shape=shape), torch.rand(1, *shape, 3)

    def outfit():
        return outfit_sheet([picture] * 4, grid([thin, thin], [thin, thin]), 384)

    assert most_memory(lambda: parts_sheet((thin,), 128, 192)) < 100 * MIB
    assert most_memory(outfit) < 300 * MIB
    assert most_memory(lambda: attribution_sheet(recorded("face"), torch.rand(1, 3, 8, 8), picture)) < 150 * MIB


def test_a_thin_picture_is_a_strip_in_the_middle_of_its_tile():
    sheet = parts_sheet((part(shape=(10, 1000)),), 64, 64)[0]
    assert sheet.shape[1] == WIDEST * TILE + 2 * GAP
    column = sheet[GAP + LINE:GAP + LINE + TILE, GAP + TILE].mean(-1)
    strip = (column < 0.6).nonzero()[:, 0]
    assert abs(float(strip.float().mean()) - TILE / 2) < 2 and len(strip) == pytest.approx(WIDEST * TILE / 100, abs=1)


@pytest.mark.parametrize("label", ["x" * 4096, "the quick brown fox " * 1000], ids=["one word", "20 kB"])
def test_a_label_of_any_length_takes_the_room_of_three_lines(label):
    """As a saved appearance may have it; 20 kB took 6.7 GB."""
    sheet = attribution_sheet(recorded(label), torch.rand(1, 3, 8, 8), None)
    assert sheet.shape[1] < 256 + 2 * 400 and sheet.shape[2] < 1000


def test_what_does_not_fit_a_sheet_is_refused_before_it_is_drawn():
    def refused(work, words):
        def tried():
            with pytest.raises(ValueError, match=words):
                work()

        assert most_memory(tried) < 500 * MIB

    refused(lambda: parts_sheet((part(),), 16384, 16384), "The frame of Preview Parts would have 268 million.*lower `width`")
    refused(lambda: parts_sheet((part(batch=400),), 64, 64), "The sheet of Preview Parts would have .*at most 34 million.*fewer")
    rows = [part(), part()]
    refused(lambda: outfit_sheet([torch.rand(1, 64, 64, 3)] * 4, grid(rows, rows), 4096), "Outfit Sheet.*lower `height`")
    many = [f"part {i}" for i in range(100)]
    refused(lambda: attribution_sheet(recorded(*many), torch.rand(9, 102, 2, 2), None), "Show Attribution.*fewer latents")
