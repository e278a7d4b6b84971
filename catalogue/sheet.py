"""The first pictures of a catalogue on one sheet, each with its name."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from sheets.sheet import GAP, PAPER, in_a_column, in_a_row, on_paper, scaled, written
from sheets.writing import captions

MOST, COLUMNS, HEIGHT = 100, 10, 192


def contact_sheet(pictures: dict[str, Path]) -> Image.Image | None:
    """pictures: by name, in order. None where none of them can be shown, as with videos."""
    tiles, titles = [], captions(pictures)
    for name, path in [*pictures.items()][:MOST]:
        try:
            with Image.open(path) as picture:
                tile = scaled(on_paper(picture), HEIGHT)
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            continue
        tiles.append(in_a_column([tile, written(titles[name])], GAP // 2))
    rows = [in_a_row(tiles[i:i + COLUMNS]) for i in range(0, len(tiles), COLUMNS)]
    return ImageOps.expand(in_a_column(rows, GAP), GAP, PAPER) if rows else None
