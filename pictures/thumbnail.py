"""A part as a small picture: what is kept of it, on white."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from .cut_out import cut_outs
from .part import Part

LONGEST = 128  # pixels of the longer side


def thumbnails(part: Part) -> list[torch.Tensor]:
    """One for each picture of the part, of the box around its mask: [H, W, 3], uint8"""
    return [_small(cut.image) for cut in cut_outs(part)]


def is_thumbnail(value: torch.Tensor) -> bool:
    return value.dtype == torch.uint8 and value.ndim == 3 and value.shape[2] == 3 and 0 < max(value.shape) <= LONGEST


def _small(picture: torch.Tensor) -> torch.Tensor:
    scale = min(1.0, LONGEST / max(picture.shape[:2]))
    size = [max(1, round(side * scale)) for side in picture.shape[:2]]
    small = F.interpolate(picture.cpu().movedim(-1, 0)[None], size=size, mode="bilinear", antialias=True, align_corners=False)[0]
    return (small.clamp(0, 1) * 255).round().byte().movedim(0, -1).contiguous()
