"""What of a part's pictures is kept: the rest is dimmed, and the share is written below."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from PIL import Image

from ..pictures.part import Part, mask_or_alpha
from .sheet import GAP, as_given, in_a_column, in_a_row, scaled, to_tensor, width_at, written
from .writing import Caption, plain_font

HEIGHT, MOST_SHOWN, DIM = 320, 16, 0.18


def kept_shares(part: Part) -> list[float]:
    """For each picture the share of it that is kept, 0..1."""
    return mask_or_alpha(part.image, part.mask).flatten(1).mean(1).tolist()


def kept_sheet(parts: list[Part], height: int = HEIGHT) -> torch.Tensor:
    """The pictures side by side, at most MOST_SHOWN of them, each of this height in pixels: [1, H, W, 3] in 0..1"""
    tiles = [tile for part in parts for tile in _tiles(part, height)][:MOST_SHOWN]
    return to_tensor(in_a_row(tiles) if len(tiles) > 1 else tiles[0])


def _tiles(part: Part, height: int) -> list[Image.Image]:
    return [
        in_a_column([_dimmed(picture, mask, height), written(Caption((f"{100 * share:.0f}% kept",), plain_font()))], GAP // 2, True)
        for picture, mask, share in zip(part.image, mask_or_alpha(part.image, part.mask), kept_shares(part))
    ]


def _dimmed(picture: torch.Tensor, mask: torch.Tensor, height: int) -> Image.Image:
    """picture: [H, W, 3 or 4]; mask: [H', W'], both in 0..1"""
    size = height, width_at(height, picture.shape[1], picture.shape[0])
    light = F.interpolate(mask[None, None], size=size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    light = DIM + (1 - DIM) * light.cpu().clamp(0, 1)
    shown = to_tensor(scaled(as_given(picture), height))[0] * light[..., None]
    return Image.fromarray((shown * 255).round().byte().numpy())
