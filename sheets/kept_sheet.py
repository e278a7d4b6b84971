"""What of a part's pictures is kept: the rest is dimmed, and the share is written below."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image

from ..pictures.part import Part, mask_or_alpha
from .sheet import GAP, as_given, in_a_column, in_a_row, scaled, to_tensor, width_at, written
from .writing import Caption, captions, plain_font

HEIGHT, MOST_SHOWN, IN_A_ROW, DIM = 320, 64, 4, 0.18


def kept_shares(part: Part) -> list[float]:
    """For each picture the share of it that is kept, 0..1."""
    return mask_or_alpha(part.image, part.mask).flatten(1).mean(1).tolist()


def kept_sheet(parts: Sequence[Part]) -> torch.Tensor:
    """The pictures, at most MOST_SHOWN of them, IN_A_ROW of them side by side, with the labels of several parts: [1, H, W, 3] in
    0..1"""
    headings = captions(part.label for part in parts) if len(parts) > 1 else {}
    lines = max((len(caption.lines) for caption in headings.values()), default=0)
    height = HEIGHT if len(parts) == 1 else HEIGHT // 2
    tiles = []
    for part in parts:
        heading = [written(headings[part.label], lines=lines, centred=True)] if headings else []
        tiles += [in_a_column([picture, *heading, share], GAP // 2, True) for picture, share in _shown(part, height)]
    rows = [in_a_row(tiles[i:i + IN_A_ROW]) for i in range(0, min(len(tiles), MOST_SHOWN), IN_A_ROW)]
    return to_tensor(in_a_column(rows, GAP))


def _shown(part: Part, height: int) -> list[tuple[Image.Image, Image.Image]]:
    """Each picture, and its share in writing."""
    return [
        (_dimmed(picture, mask, height), written(Caption((f"{100 * share:.0f}% kept",), plain_font())))
        for picture, mask, share in zip(part.image, mask_or_alpha(part.image, part.mask), kept_shares(part))
    ]


def _dimmed(picture: torch.Tensor, mask: torch.Tensor, height: int) -> Image.Image:
    """picture: [H, W, 3 or 4]; mask: [H', W'], both in 0..1"""
    size = height, width_at(height, picture.shape[1], picture.shape[0])
    light = F.interpolate(mask[None, None], size=size, mode="bilinear", antialias=True, align_corners=False)[0, 0]
    light = DIM + (1 - DIM) * light.cpu().clamp(0, 1)
    shown = to_tensor(scaled(as_given(picture), height))[0] * light[..., None]
    return Image.fromarray((shown * 255).round().byte().numpy())
