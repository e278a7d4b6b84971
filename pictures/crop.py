"""A crop of a picture, and the same place in whatever is stretched over the whole of it: pose pictures and regions of any size."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image


class Box(NamedTuple):
    """A place in a picture, as fractions of its sides."""

    left: float | Fraction
    top: float | Fraction
    right: float | Fraction
    bottom: float | Fraction

    def within(self, outer: Box) -> Box:
        """A place in what shows `outer` of a picture, as a place in that picture."""
        width, height = outer.right - outer.left, outer.bottom - outer.top
        return Box(
            outer.left + self.left * width, outer.top + self.top * height, outer.left + self.right * width,
            outer.top + self.bottom * height,
        )


WHOLE = Box(0, 0, 1, 1)
ROUNDED = 8  # pixels of a side, when a picture is scaled for a latent


class Crop(NamedTuple):
    """A box of a picture, in its pixels, and the size of that picture."""

    x: int
    y: int
    width: int
    height: int
    of_width: int
    of_height: int

    @property
    def box(self) -> Box:
        return Box(
            Fraction(self.x, self.of_width), Fraction(self.y, self.of_height), Fraction(self.x + self.width, self.of_width),
            Fraction(self.y + self.height, self.of_height),
        )

    def fits(self, width: int, height: int) -> bool:
        """Whether a picture of this size has the shape of the one that was cropped, and so may be the same in another size."""
        aside = abs(width * self.of_height - height * self.of_width)  # pixels of one side, times the other
        return aside <= ROUNDED * max(self.of_width, self.of_height)

    def of(self, width: int, height: int) -> Crop:
        """The same place in the same picture of another size: the pixels that it touches."""
        box = self.box
        left, top = math.floor(box.left * width), math.floor(box.top * height)
        return Crop(left, top, math.ceil(box.right * width) - left, math.ceil(box.bottom * height) - top, width, height)


def crop_box(x: int, y: int, width: int, height: int, size: tuple[int, int]) -> Crop:
    """What of a box lies in a picture.

    x, y, width, height: in pixels; a width or height of 0: as far as the picture goes
    size: width and height of the picture
    raises: ValueError for a box that lies outside of it
    """
    right, bottom = (begin + side if side else end for begin, side, end in ((x, width, size[0]), (y, height, size[1])))
    left, top, right, bottom = max(x, 0), max(y, 0), min(right, size[0]), min(bottom, size[1])
    if left >= right or top >= bottom:
        raise ValueError(
            f"The box of {width}x{height} pixels at x {x}, y {y} lies outside of the picture, which has {size[0]}x{size[1]}: "
            "choose x and y inside of it."
        )
    return Crop(left, top, right - left, bottom - top, *size)


def cut(pictures: torch.Tensor, box: Box) -> tuple[torch.Tensor, Box]:
    """The pixels that a box touches, and the box among them: the whole of them where it runs along their edges.

    pictures: [B, H, W] or [B, H, W, C]
    returns: [B, h, w] or [B, h, w, C], a view
    """
    height, width = pictures.shape[1:3]
    left, right = Fraction(box.left) * width, Fraction(box.right) * width
    top, bottom = Fraction(box.top) * height, Fraction(box.bottom) * height
    x, y = math.floor(left), math.floor(top)
    w, h = math.ceil(right) - x, math.ceil(bottom) - y
    return pictures[:, y:y + h, x:x + w], Box((left - x) / w, (top - y) / h, (right - x) / w, (bottom - y) / h)


def lanczos_of(pictures: torch.Tensor, box: Box, width: int, height: int) -> torch.Tensor:
    """The box of each picture by Pillow's Lanczos filter, as the host's, but of a box whose sides may run through pixels.

    pictures: [B, H, W] in 0..1
    returns: [B, height, width] in 0..1, float32, on the CPU
    """
    h, w = pictures.shape[1:]
    sides = tuple(float(side) for side in (box.left * w, box.top * h, box.right * w, box.bottom * h))
    planes = [Image.fromarray(picture) for picture in pictures.cpu().float().numpy()]
    resized = [np.array(plane.resize((width, height), Image.Resampling.LANCZOS, box=sides)) for plane in planes]
    return torch.from_numpy(np.stack(resized)).clamp(0.0, 1.0)


def means_of(masks: torch.Tensor, box: Box, width: int, height: int) -> torch.Tensor:
    """The box of each mask, whose sides may run through pixels: each value is the mean of what it covers.

    masks: [B, H, W]
    returns: [B, height, width]
    """
    rows = _shares(box.top, box.bottom, masks.shape[1], height).to(masks)
    columns = _shares(box.left, box.right, masks.shape[2], width).to(masks)
    return rows @ masks @ columns.mT


def _shares(begin: float | Fraction, end: float | Fraction, pixels: int, count: int) -> torch.Tensor:
    """How much of each of `count` pieces between begin and end, fractions of a side, lies in each of its pixels: [count, pixels]"""
    edges = torch.tensor([float((begin + (end - begin) * Fraction(i, count)) * pixels) for i in range(count + 1)]).double()
    pixel = torch.arange(pixels).double()
    shares = (torch.minimum(edges[1:, None], pixel + 1) - torch.maximum(edges[:-1, None], pixel)).clamp_min(0.0)
    return shares / shares.sum(1, keepdim=True)
