"""Mending masks."""

import pytest
import torch
from harness.workbench import run

NOTHING = {"largest": False, "fill_holes": False, "grow": 0, "edges": 0, "feather": 0}


def refine(mask, **options):
    return run("Parts2WholeRefineMask", mask=mask, **{**NOTHING, **options})


def square(begin=20, end=40, size=60):
    mask = torch.zeros(1, size, size)
    mask[:, begin:end, begin:end] = 1
    return mask


def test_with_everything_off_a_mask_stays_as_it_is():
    mask = torch.rand(3, 20, 30)
    assert torch.equal(refine(mask), mask)
    assert torch.equal(refine(mask[0]), mask[:1])


def test_the_largest_piece():
    mask = square() * 0.9
    mask[0, 0:5, 0:5] = 1
    mask[0, 40, 40] = 0.3  # soft, and touches the square at a corner
    assert torch.equal(refine(mask, largest=True)[0, 20:], mask[0, 20:]) and not refine(mask, largest=True)[0, :10].any()
    assert torch.equal(refine(torch.zeros(1, 8, 8), largest=True), torch.zeros(1, 8, 8))


def test_holes():
    mask = square()
    mask[0, 28:32, 28:32] = 0
    mask[0, 20:23, 30] = 0  # a bay, not a hole
    filled = refine(mask, fill_holes=True)
    assert filled[0, 28:32, 28:32].eq(1).all() and filled[0, 20:23, 30].eq(0).all()


@pytest.mark.parametrize("grow", [5, -5])
def test_grow(grow):
    grown = refine(square(), grow=grow)
    assert grown[0, 30].nonzero().flatten().tolist() == list(range(20 - grow, 40 + grow))
    assert grown[0, :, 30].nonzero().flatten().tolist() == list(range(20 - grow, 40 + grow))
    corner = grown[0, 20 - grow, 20 - grow] if grow > 0 else 1 - grown[0, 24, 24]
    assert corner == (0 if grow > 0 else 1), "corners become round when it grows, and the other way round"


def test_edges_of_the_picture():
    """The mask is three pixels short of the edge on one side and three beyond it on the other."""
    image = square()[..., None].expand(-1, -1, -1, 3)
    mask = torch.zeros(1, 60, 60)
    mask[:, 20:40, 23:43] = 1
    better = refine(mask, image=image, edges=8)
    assert (better - square()).abs().mean() < 0.6 * (mask - square()).abs().mean()


def test_feather():
    soft = refine(square(), feather=6)
    assert soft[0, 30, 30] > 0.99 and 0.3 < soft[0, 30, 20] < 0.7 and soft[0, 30, 10] < 0.01
    assert abs(float(soft.sum()) - 400) < 1


def test_what_is_missing_or_does_not_fit():
    with pytest.raises(ValueError, match="needs the picture to find its edges"):
        refine(square(), edges=3)
    with pytest.raises(ValueError, match="1 masks and 2 pictures"):
        refine(square(), image=torch.rand(2, 60, 60, 3), edges=3)
