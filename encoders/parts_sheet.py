"""A contact sheet of parts: what was given, and what of it the appearance encoder will see and keep."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from ..attention.reference_mask import token_mask
from .label_embedding import LabelledPart
from .reference_picture import fit_to_frame

# Pixels of the frame for each token, at the self-attention layers of SD1.5's U-Net from the finest to the coarsest.
LEVELS = (8, 16, 32, 64)
TILE, GAP, LINE, FONT_SIZE = 256, 12, 20, 14
PAPER, INK, REMOVED = (232, 235, 239), (32, 36, 42), (214, 51, 108)


def parts_sheet(parts: tuple[LabelledPart, ...], width: int, height: int, fit: str = "stretch") -> torch.Tensor:
    """One column for each reference picture: its label, the picture as given, the same as the encoder sees it with what is
    masked out in red, and how much is kept.

    width, height: of the encoder's frame, in pixels
    fit: how pictures come to it, see `fit_to_frame`
    returns: [1, H, W, 3] in 0..1
    """
    font = ImageFont.load_default(FONT_SIZE)
    columns = []
    for labelled in parts:
        part = labelled.part
        for given, picture, mask in zip(part.image, *fit_to_frame(part, width, height, fit)):
            kept = [token_mask(mask, (-(-height // size), -(-width // size))) for size in LEVELS]
            shares = " ".join(f"{100 * (level > 0).float().mean():.0f}%" for level in kept)
            tiles = as_given(given), _with_mask(picture, kept[0])
            texts = [f"mask {100 * mask.mean():.0f}% of the frame", "tokens kept, by level:", shares]
            columns.append(_column(part.label, tiles, texts, font))
    sheet = Image.new("RGB", (sum(column.width + GAP for column in columns) + GAP, columns[0].height + 2 * GAP), PAPER)
    left = GAP
    for column in columns:
        sheet.paste(column, (left, GAP))
        left += column.width + GAP
    return torch.from_numpy(np.asarray(sheet).astype(np.float32) / 255.0)[None]


def as_given(picture: torch.Tensor) -> Image.Image:
    """picture: [H, W, 3 or 4] in 0..1; a cut-out lies on the paper."""
    pixels = Image.fromarray((picture.cpu().clamp(0, 1) * 255).round().byte().numpy()).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", pixels.size, PAPER), pixels).convert("RGB")


def _with_mask(picture: torch.Tensor, kept: torch.Tensor) -> Image.Image:
    """kept: [h * w] in 0..1, of the finest level"""
    height, width = picture.shape[:2]
    kept = kept.unflatten(0, (-(-height // LEVELS[0]), -1))
    kept = kept.repeat_interleave(LEVELS[0], 0).repeat_interleave(LEVELS[0], 1)[:height, :width, None]
    red = picture * 0.3 + torch.tensor(REMOVED) / 255 * 0.7
    shown = picture * kept + red * (1 - kept)
    return Image.fromarray((shown * 255).round().byte().numpy())


def _column(label: str, tiles: tuple[Image.Image, ...], texts: list[str], font) -> Image.Image:
    tiles = [tile.resize((max(1, round(tile.width * TILE / tile.height)), TILE), Image.Resampling.LANCZOS) for tile in tiles]
    width = max(*(tile.width for tile in tiles), *(int(font.getlength(text)) + 1 for text in (label, *texts)))
    column = Image.new("RGB", (width, LINE * (1 + len(texts)) + len(tiles) * (TILE + GAP)), PAPER)
    draw, top = ImageDraw.Draw(column), LINE
    draw.text((0, 0), label, INK, font)
    for tile in tiles:
        column.paste(tile, (0, top))
        top += TILE + GAP
    for text in texts:
        draw.text((0, top), text, INK, font)
        top += LINE
    return column
