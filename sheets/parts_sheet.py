"""A contact sheet of parts: what was given, and what of it the appearance encoder will see and keep."""

from __future__ import annotations

from dataclasses import replace

import torch
from einops import repeat
from PIL import Image

from ..attention.reference_mask import token_mask
from ..pictures.frame import fit_to_frame
from ..pictures.part import LabelledPart, Part, mask_or_alpha
from .sheet import GAP, PAPER, as_given, in_a_column, in_a_row, require_room, scaled, to_tensor, written
from .writing import Caption, captions, plain_font

# Pixels of the frame for each token, at the depths of SD1.5's U-Net.
TOKEN_SIDES = (8, 16, 32, 64)
TILE, REMOVED = 256, (214, 51, 108)


def parts_sheet(parts: tuple[LabelledPart, ...], width: int, height: int, fit: str = "stretch") -> torch.Tensor:
    """One column for each reference picture: its label, the picture as given, the same as the encoder sees it with what is
    masked out in red, and how much is kept.

    width, height: of the encoder's frame, in pixels
    fit: how pictures come to it, see `fit_to_frame`
    returns: [1, H, W, 3] in 0..1
    raises: ValueError where the frame or the sheet is too large to be shown
    """
    require_room(width * height, "The frame of Preview Parts", "lower `width` and `height`")
    headings = captions(labelled.part.label for labelled in parts)
    lines = max(len(caption.lines) for caption in headings.values())
    columns, pixels = [], 0
    for labelled in parts:
        for part in _one_by_one(labelled.part):
            columns.append(_column(part, written(headings[part.label], lines=lines), width, height, fit))
            pixels += (columns[-1].width + GAP) * columns[-1].height
            require_room(pixels, "The sheet of Preview Parts", "connect fewer pictures to it")
    row = in_a_row(columns)
    sheet = Image.new("RGB", (row.width + 2 * GAP, row.height + 2 * GAP), PAPER)
    sheet.paste(row, (GAP, GAP))
    return to_tensor(sheet)


def _one_by_one(part: Part) -> list[Part]:
    """A part for each of its pictures."""
    masks = mask_or_alpha(part.image, part.mask)
    return [replace(part, image=image[None], mask=mask[None]) for image, mask in zip(part.image, masks)]


def _column(part: Part, heading: Image.Image, width: int, height: int, fit: str) -> Image.Image:
    (picture,), (mask,) = fit_to_frame(part, width, height, fit)
    kept = [token_mask(mask, (-(-height // size), -(-width // size))) for size in TOKEN_SIDES]
    shares = " ".join(f"{100 * (mask > 0).float().mean():.0f}%" for mask in kept)
    text = (f"mask {100 * mask.mean():.0f}% of the frame", "tokens kept, by level:", shares)
    given, seen = (scaled(tile, TILE) for tile in (as_given(part.image[0]), _with_mask(picture, kept[0])))
    return in_a_column([in_a_column([heading, given]), seen, written(Caption(text, plain_font()))], GAP)


def _with_mask(picture: torch.Tensor, kept: torch.Tensor) -> Image.Image:
    """kept: [h * w] in 0..1, at the smallest depth"""
    height, width = picture.shape[:2]
    side = TOKEN_SIDES[0]
    kept = repeat(kept, "(h w) -> (h y) (w x) 1", h=-(-height // side), y=side, x=side)[:height, :width]
    red = picture * 0.3 + torch.tensor(REMOVED) / 255 * 0.7
    shown = picture * kept + red * (1 - kept)
    return Image.fromarray((shown * 255).round().byte().numpy())
