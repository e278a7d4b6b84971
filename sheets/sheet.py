"""What the sheets that nodes show are made of: tiles on paper, and their writing."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw

from .writing import Caption

GAP, LINE = 12, 20
PAPER, INK = (232, 235, 239), (32, 36, 42)
WIDEST = 8  # times as wide as high: what is wider is shown as a strip
MOST_PIXELS = 1 << 25


def require_room(pixels: int, what: str, advice: str):
    """raises: ValueError where this is more than a sheet may have"""
    if pixels > MOST_PIXELS:
        raise ValueError(
            f"{what} would have {pixels / 1e6:.0f} million pixels, and at most {MOST_PIXELS / 1e6:.0f} million are shown: {advice}."
        )


def as_given(picture: torch.Tensor) -> Image.Image:
    """picture: [H, W, 3 or 4] in 0..1"""
    return on_paper(Image.fromarray(picture.cpu().clamp(0, 1).mul_(255).round_().byte().numpy()))


def on_paper(picture: Image.Image) -> Image.Image:
    """The picture, opaque: a cut-out lies on the paper."""
    paper = Image.new("RGBA", picture.size, PAPER)
    return Image.alpha_composite(paper, picture.convert("RGBA")).convert("RGB")


def width_at(height: int, picture_width: int, picture_height: int) -> int:
    """How wide a picture is when it is scaled to this height, in pixels."""
    return min(max(1, round(picture_width * height / picture_height)), WIDEST * height)


def scaled(picture: Image.Image, height: int) -> Image.Image:
    """The picture at this height, in pixels, with its own aspect ratio; one that is too wide on a piece of paper."""
    width = width_at(height, picture.width, picture.height)
    strip = max(1, round(picture.height * width / picture.width))
    if width < WIDEST * height or strip >= height:
        return picture.resize((width, height), Image.Resampling.LANCZOS)
    paper = Image.new("RGB", (width, height), PAPER)
    paper.paste(picture.resize((width, strip), Image.Resampling.LANCZOS), (0, (height - strip) // 2))
    return paper


def in_a_row(tiles: list[Image.Image]) -> Image.Image:
    """The tiles side by side, their upper edges in line."""
    row = Image.new("RGB", (sum(tile.width for tile in tiles) + GAP * (len(tiles) - 1), max(tile.height for tile in tiles)), PAPER)
    left = 0
    for tile in tiles:
        row.paste(tile, (left, 0))
        left += tile.width + GAP
    return row


def in_a_column(tiles: list[Image.Image], gap: int = 0, centred: bool = False) -> Image.Image:
    """The tiles one below the other, their left edges or their middles in line."""
    width = max(tile.width for tile in tiles)
    column = Image.new("RGB", (width, sum(tile.height for tile in tiles) + gap * (len(tiles) - 1)), PAPER)
    top = 0
    for tile in tiles:
        column.paste(tile, ((width - tile.width) // 2 if centred else 0, top))
        top += tile.height + gap
    return column


def written(caption: Caption, width: int = 0, lines: int = 0, indent: int = 0, centred: bool = False) -> Image.Image:
    """The caption on a piece of paper.

    width, lines: of the paper at least, in pixels and in lines of LINE pixels
    indent: where the lines begin, in pixels
    """
    height = LINE * max(lines, len(caption.lines))
    paper = Image.new("RGB", (max(width, indent + caption.width), height), PAPER)
    draw = ImageDraw.Draw(paper)
    for i, line in enumerate(caption.lines):
        if centred:
            draw.text((paper.width / 2, i * LINE), line, INK, caption.font, anchor="ma")
        else:
            draw.text((indent, i * LINE), line, INK, caption.font)
    return paper


def to_tensor(sheet: Image.Image) -> torch.Tensor:
    """[1, H, W, 3] in 0..1"""
    return torch.from_numpy(np.array(sheet, dtype=np.float32)).div_(255.0)[None]
