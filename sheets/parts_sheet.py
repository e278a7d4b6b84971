"""A contact sheet of parts: what was given, and what of it the appearance encoder will see and keep."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from ..attention.reference_mask import token_mask
from ..pictures.frame import fit_to_frame
from ..pictures.part import LabelledPart
from .sheet import GAP, INK, LINE, PAPER, as_given, font, in_a_row, scaled, to_tensor

# Pixels of the frame for each token, at the self-attention layers of SD1.5's U-Net from the finest to the coarsest.
LEVELS = (8, 16, 32, 64)
TILE, REMOVED = 256, (214, 51, 108)


def parts_sheet(parts: tuple[LabelledPart, ...], width: int, height: int, fit: str = "stretch") -> torch.Tensor:
    """One column for each reference picture: its label, the picture as given, the same as the encoder sees it with what is
    masked out in red, and how much is kept.

    width, height: of the encoder's frame, in pixels
    fit: how pictures come to it, see `fit_to_frame`
    returns: [1, H, W, 3] in 0..1
    """
    columns = []
    for labelled in parts:
        part = labelled.part
        for given, picture, mask in zip(part.image, *fit_to_frame(part, width, height, fit)):
            kept = [token_mask(mask, (-(-height // size), -(-width // size))) for size in LEVELS]
            shares = " ".join(f"{100 * (level > 0).float().mean():.0f}%" for level in kept)
            tiles = as_given(given), _with_mask(picture, kept[0])
            texts = [f"mask {100 * mask.mean():.0f}% of the frame", "tokens kept, by level:", shares]
            columns.append(_column(part.label, tiles, texts))
    row = in_a_row(columns)
    sheet = Image.new("RGB", (row.width + 2 * GAP, row.height + 2 * GAP), PAPER)
    sheet.paste(row, (GAP, GAP))
    return to_tensor(sheet)


def _with_mask(picture: torch.Tensor, kept: torch.Tensor) -> Image.Image:
    """kept: [h * w] in 0..1, of the finest level"""
    height, width = picture.shape[:2]
    kept = kept.unflatten(0, (-(-height // LEVELS[0]), -1))
    kept = kept.repeat_interleave(LEVELS[0], 0).repeat_interleave(LEVELS[0], 1)[:height, :width, None]
    red = picture * 0.3 + torch.tensor(REMOVED) / 255 * 0.7
    shown = picture * kept + red * (1 - kept)
    return Image.fromarray((shown * 255).round().byte().numpy())


def _column(label: str, tiles: tuple[Image.Image, ...], texts: list[str]) -> Image.Image:
    tiles = [scaled(tile, TILE) for tile in tiles]
    width = max(*(tile.width for tile in tiles), *(int(font().getlength(text)) + 1 for text in (label, *texts)))
    column = Image.new("RGB", (width, LINE * (1 + len(texts)) + len(tiles) * (TILE + GAP)), PAPER)
    draw, top = ImageDraw.Draw(column), LINE
    draw.text((0, 0), label, INK, font())
    for tile in tiles:
        column.paste(tile, (0, top))
        top += TILE + GAP
    for text in texts:
        draw.text((0, top), text, INK, font())
        top += LINE
    return column
