"""Where in a batch the references act, and how that is brought to the grids of the layers."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ...pictures.crop import WHOLE, Box, means_of


class RegionMap(NamedTuple):
    """values: [R, 1, h, w], for each row of a batch; by_centre: how they are brought to a coarser grid"""

    values: torch.Tensor
    by_centre: bool = False


def at_size(maps: torch.Tensor, size: tuple[int, int], by_centre: bool) -> torch.Tensor:
    """Maps at another size: [..., H, W] -> [..., h, w]

    by_centre: each place has the value at its centre, so that of maps which nowhere overlap no two meet at any size; otherwise the
        mean of what it covers, in which small regions count at every size
    """
    return F.interpolate(maps, size=size, mode="nearest-exact") if by_centre else F.adaptive_avg_pool2d(maps, size)


def region_of(region: torch.Tensor, crop: Box, size: tuple[int, int], by_centre: bool) -> torch.Tensor:
    """What a latent (h, w), which shows a crop of a region [H, W], has of it: [1, 1, h, w]. by_centre: as `at_size`"""
    if by_centre:
        rows, columns = (
            torch.tensor([int((begin + (end - begin) * Fraction(2 * i + 1, 2 * count)) * pixels) for i in range(count)])
            for begin, end, count, pixels in (
                (crop.top, crop.bottom, size[0], region.shape[0]), (crop.left, crop.right, size[1], region.shape[1]),
            )
        )
        return region[rows][:, columns][None, None]
    if crop == WHOLE:
        return at_size(region[None, None], size, by_centre)
    return means_of(region[None], crop, size[1], size[0])[None]
