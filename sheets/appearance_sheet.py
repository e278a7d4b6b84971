"""What is worn, as small pictures with their labels."""

from __future__ import annotations

import os
import uuid

import torch
from PIL import Image

from ..attention.bank import Appearance
from .sheet import GAP, PAPER, in_a_column, in_a_row, scaled, to_tensor, written
from .writing import captions

HEIGHT, IN_A_ROW, MOST_SHOWN = 160, 4, 32


def appearance_sheet(appearance: Appearance) -> torch.Tensor:
    """At most MOST_SHOWN references, IN_A_ROW of them side by side: [1, H, W, 3] in 0..1. What was saved without a picture shows
    its label only."""
    references = appearance.references[:MOST_SHOWN]
    headings = captions(reference.label for reference in references)
    lines = max(len(caption.lines) for caption in headings.values())
    tiles = [
        in_a_column([_picture(reference.thumbnail), written(headings[reference.label], lines=lines, centred=True)], GAP // 2, True)
        for reference in references
    ]
    rows = [in_a_row(tiles[i:i + IN_A_ROW]) for i in range(0, len(tiles), IN_A_ROW)]
    return to_tensor(in_a_column(rows, GAP))


def save_beside(path: str, appearance: Appearance):
    """Writes the sheet as PNG beside a file of the wardrobe, under its name: web/wardrobe.js shows it when the file is chosen."""
    sheet = appearance_sheet(appearance)[0].mul(255).round().byte().numpy()
    picture, part = os.path.splitext(path)[0] + ".png", f"{path}.{uuid.uuid4().hex}.part"
    Image.fromarray(sheet).save(part, format="PNG")
    os.replace(part, picture)


def _picture(thumbnail: torch.Tensor | None) -> Image.Image:
    if thumbnail is None:
        return Image.new("RGB", (HEIGHT, HEIGHT), PAPER)
    return scaled(Image.fromarray(thumbnail.numpy()), HEIGHT)
