"""Filters that slide over masks: the largest value, the mean and the blur of what is around each pixel.

The cost does not grow with the square of the radius. After every strip of pixels the host can interrupt.
"""

from __future__ import annotations

from collections.abc import Callable

import comfy.model_management
import numpy as np
import torch
from einops import rearrange
from scipy import ndimage

STRIP = 1 << 18  # pixels
Worked = Callable[[int], None]  # is told, for a progress bar, how many pixels a pass along rows or columns has come on


def unseen(pixels: int):
    """For what takes too short for a progress bar."""


def largest(masks: torch.Tensor, radius: int, worked: Worked) -> torch.Tensor:
    """The largest value in a square around each pixel. masks: [B, H, W]; radius: in pixels"""
    return _along_both(masks, lambda lines: ndimage.maximum_filter1d(lines, 2 * radius + 1, mode="nearest"), worked)


def largest_in_diamond(masks: torch.Tensor, radius: int) -> torch.Tensor:
    """The largest value that is so many steps to the side, up and down away, or fewer. masks: [B, H, W]; radius: in steps

    A diamond together with four copies of it, each moved by half of its radius, is the diamond of one and a half times the
    radius, so this takes as many rounds as the logarithm of the radius.
    """
    reached = 0
    while reached < radius:
        comfy.model_management.throw_exception_if_processing_interrupted()
        step = min((reached + 2) // 2, radius - reached)
        before, masks = masks, masks.clone()
        for axis in (1, 2):
            length = masks.shape[axis] - step
            if length > 0:
                for to, source in ((0, step), (step, 0)):
                    target = masks.narrow(axis, to, length)
                    torch.maximum(target, before.narrow(axis, source, length), out=target)
        reached += step
    return masks


def mean(masks: torch.Tensor, radius: int, worked: Worked) -> torch.Tensor:
    """The mean over that of a square around each pixel which lies in the picture. masks: [B, H, W]; radius: in pixels"""

    def mean_of_lines(lines: np.ndarray) -> np.ndarray:
        inside = ndimage.uniform_filter1d(np.ones(lines.shape[1]), 2 * radius + 1, mode="constant")
        return ndimage.uniform_filter1d(lines, 2 * radius + 1, mode="constant") / inside.astype(lines.dtype)

    return _along_both(masks, mean_of_lines, worked)


def blurred(masks: torch.Tensor, sigma: float, worked: Worked) -> torch.Tensor:
    """Blurred by a Gaussian. masks: [B, H, W]; sigma: in pixels"""
    return _along_both(masks, lambda lines: ndimage.gaussian_filter1d(lines, sigma), worked)


def _along_both(masks: torch.Tensor, of_lines: Callable[[np.ndarray], np.ndarray], worked: Worked) -> torch.Tensor:
    """Along the columns, then along the rows. of_lines: takes and returns [lines, length]"""
    columns = _along(rearrange(masks, "b h w -> (b w) h"), of_lines, worked)
    rows = _along(rearrange(columns, "(b w) h -> (b h) w", b=len(masks)), of_lines, worked)
    return rearrange(rows, "(b h) w -> b h w", b=len(masks))


def _along(lines: torch.Tensor, of_lines: Callable[[np.ndarray], np.ndarray], worked: Worked) -> torch.Tensor:
    """lines: [lines, length]"""
    strips = []
    for strip in lines.split(max(1, STRIP // lines.shape[1])):
        comfy.model_management.throw_exception_if_processing_interrupted()
        strips.append(torch.from_numpy(of_lines(strip.numpy())))
        worked(strip.numel())
    return torch.cat(strips)
