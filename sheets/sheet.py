"""What the sheets that nodes show are made of: tiles on paper, and their writing."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageFont

GAP, LINE, FONT_SIZE = 12, 20, 14
PAPER, INK = (232, 235, 239), (32, 36, 42)


def font():
    return ImageFont.load_default(FONT_SIZE)


def as_given(picture: torch.Tensor) -> Image.Image:
    """picture: [H, W, 3 or 4] in 0..1; a cut-out lies on the paper."""
    pixels = Image.fromarray((picture.cpu().clamp(0, 1) * 255).round().byte().numpy()).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, PAPER), pixels).convert("RGB")


def scaled(picture: Image.Image, height: int) -> Image.Image:
    """The picture at this height, in pixels, with its own aspect ratio."""
    return picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)


def in_a_row(tiles: list[Image.Image]) -> Image.Image:
    """The tiles side by side, their upper edges in line."""
    row = Image.new("RGB", (sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1), max(tile.height for tile in tiles)), PAPER)
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP
    return row


def to_tensor(sheet: Image.Image) -> torch.Tensor:
    """[1, H, W, 3] in 0..1"""
    return torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255.0)[None]
