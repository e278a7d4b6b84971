"""Cut-outs: what a picture shows of a part, with white around it."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F

from .crop import Box
from .frame import resize_bicubic
from .part import Part, mask_or_alpha

# Of pixels: the side of a token in every edit model that is known here, so that the mask's tokens are those of the picture.
STEP = 16


class CutOut(NamedTuple):
    """image: [H, W, 3] in 0..1, white where the mask is 0; mask: [H, W] in 0..1"""

    image: torch.Tensor
    mask: torch.Tensor


def cut_outs(part: Part, fit: str = "crop", megapixels: float | None = None) -> list[CutOut]:
    """A cut-out of each picture of a part. A mask between 0 and 1 blends the picture with the white.

    fit: `crop`: the smallest box around the mask; `whole`: all of the picture
    megapixels: the size to which it is scaled, with sides that are multiples of STEP; None: it keeps its own
    """
    return [_cut_out(picture, mask, fit, megapixels) for picture, mask in zip(part.image, mask_or_alpha(part.image, part.mask))]


def side_by_side(parts: list[CutOut]) -> CutOut:
    """Cut-outs of different sizes as one batch: each in the middle, with white around it. [B, H, W, 3], [B, H, W]"""
    height, width = (max(part.mask.shape[i] for part in parts) for i in (0, 1))
    images, masks = torch.ones(len(parts), height, width, 3), torch.zeros(len(parts), height, width)
    for i, (image, mask) in enumerate(parts):
        top, left = (height - mask.shape[0]) // 2, (width - mask.shape[1]) // 2
        images[i, top:top + mask.shape[0], left:left + mask.shape[1]] = image
        masks[i, top:top + mask.shape[0], left:left + mask.shape[1]] = mask
    return CutOut(images, masks)


def _cut_out(picture: torch.Tensor, mask: torch.Tensor, fit: str, megapixels: float | None) -> CutOut:
    height, width = picture.shape[:2]
    if mask.shape != picture.shape[:2]:
        mask = F.interpolate(mask[None, None], size=(height, width), mode="nearest-exact")[0, 0]
    opaque = mask
    if picture.shape[-1] == 4:  # where the mask is made of alpha, that counts once
        picture, opaque = picture[..., :3], torch.minimum(mask, picture[..., 3])
    # Before any resizing: what is outside of the mask must not reach what is inside.
    picture = picture * opaque[..., None] + (1 - opaque[..., None])
    shown = mask > 0
    if fit == "whole" or not shown.any():  # of a thin mask nothing may be left at the picture's size
        shown = torch.ones_like(shown)
    rows, columns = shown.any(1).nonzero()[:, 0], shown.any(0).nonzero()[:, 0]
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    if megapixels is None:
        return CutOut(picture[top:bottom, left:right], mask[top:bottom, left:right])
    scale = math.sqrt(megapixels * 1024 * 1024 / ((bottom - top) * (right - left)))
    new_width, new_height = (max(STEP, round(side * scale / STEP) * STEP) for side in (right - left, bottom - top))
    box = Box(left / width, top / height, right / width, bottom / height)
    return CutOut(resize_bicubic(picture, new_width, new_height, box), resize_bicubic(mask, new_width, new_height, box))
