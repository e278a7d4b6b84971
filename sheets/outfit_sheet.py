"""The labelled sheet of an outfit grid's results."""

from __future__ import annotations

import torch
from PIL import Image

from ..pictures.outfits import Outfit, OutfitGrid
from ..pictures.part import mask_or_alpha
from .sheet import GAP, PAPER, as_given, in_a_column, in_a_row, require_room, scaled, to_tensor, width_at, written
from .writing import Caption, captions

THUMBNAIL = 96
TITLE, ADVICE = "The sheet of Outfit Sheet", "lower `height`, or make a smaller grid"


def outfit_sheet(images: list[torch.Tensor], grid: OutfitGrid, height: int) -> torch.Tensor:
    """The results as a table, with the parts of each row and each column at the edges.

    images: row by row, each [B, H, W, 3] in 0..1; the pictures of a batch lie side by side
    height: of one result, in pixels
    returns: [1, H', W', 3] in 0..1
    raises: ValueError where there are more or fewer images than cells, and where the sheet is too large to be shown
    """
    if len(images) != len(grid.rows) * len(grid.columns):
        raise ValueError(
            f"Outfit Sheet got {len(images)} image(s), but the grid has {len(grid.rows)} row(s) and {len(grid.columns)} column(s), "
            f"so {len(grid.rows) * len(grid.columns)}. Connect the images that were made from the PARTS of the same Outfit Grid, "
            "as they come from VAE Decode."
        )
    titles = captions(labels(grid))
    heads, pixels = [], 0
    for outfit in (*grid.rows, *grid.columns):
        heads.append(_heading(outfit, titles))
        pixels += heads[-1].width * heads[-1].height
        require_room(pixels, TITLE, ADVICE)
    row_heads, column_heads = heads[:len(grid.rows)], heads[len(grid.rows):]
    columns = len(column_heads)
    widths = [_row_width(image, height) for image in images]
    left = [max(head.width for head in row_heads)]
    left += [max(head.width, *widths[column::columns]) for column, head in enumerate(column_heads)]
    top = [max(head.height for head in column_heads), *(max(head.height, height) for head in row_heads)]
    size = sum(left) + GAP * (len(left) + 1), sum(top) + GAP * (len(top) + 1)
    require_room(size[0] * size[1], TITLE, ADVICE)

    sheet = Image.new("RGB", size, PAPER)

    def put(tile: Image.Image, row: int, column: int):
        x, y = (sum(sides[:i]) + GAP * (i + 1) for sides, i in ((left, column), (top, row)))
        sheet.paste(tile, (x + (left[column] - tile.width) // 2, y + (top[row] - tile.height) // 2))

    for column, head in enumerate(column_heads, 1):
        put(head, 0, column)
    for row, head in enumerate(row_heads, 1):
        put(head, row, 0)
    for i, image in enumerate(images):
        put(in_a_row([scaled(as_given(picture), height) for picture in image]), 1 + i // columns, 1 + i % columns)
    return to_tensor(sheet)


def labels(grid: OutfitGrid) -> list[str]:
    """Those of the rows, then those of the columns."""
    return [labelled.part.label for outfit in (*grid.rows, *grid.columns) for labelled in outfit]


def _row_width(image: torch.Tensor, height: int) -> int:
    """Of the pictures of a batch side by side, in pixels."""
    batch, picture_height, picture_width = image.shape[:3]
    return batch * width_at(height, picture_width, picture_height) + GAP * (batch - 1)


def _heading(outfit: Outfit, titles: dict[str, Caption]) -> Image.Image:
    """The outfit's parts side by side, each with its label below."""
    tiles = []
    for labelled in outfit:
        label, image = labelled.part.label, labelled.part.image
        masks = mask_or_alpha(image, labelled.part.mask)
        pictures = in_a_row([scaled(as_given(_shown(*each)), THUMBNAIL) for each in zip(image, masks)])
        tiles.append(in_a_column([pictures, written(titles[label], pictures.width, centred=True)], centred=True))
    return in_a_row(tiles)


def _shown(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The box around what the mask lets through. picture: [H, W, C]; mask: [H', W']"""
    shown = (mask > 0).cpu()
    if not shown.any():
        return picture
    box = []
    for axis, side in enumerate(picture.shape[:2]):
        lines = shown.any(1 - axis).nonzero()[:, 0]
        scale = torch.tensor(side) / torch.tensor(shown.shape[axis])
        box.append(slice(int((lines[0] * scale).floor()), int(((lines[-1] + 1) * scale).ceil())))
    return picture[box[0], box[1]]
