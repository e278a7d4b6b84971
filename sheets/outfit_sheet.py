"""The labelled sheet of an outfit grid's results."""

from __future__ import annotations

import torch
from PIL import Image, ImageDraw

from ..pictures.outfits import Outfit, OutfitGrid
from .sheet import GAP, INK, LINE, PAPER, as_given, font, in_a_row, scaled, to_tensor

THUMBNAIL = 96


def outfit_sheet(images: list[torch.Tensor], grid: OutfitGrid, height: int) -> torch.Tensor:
    """The results in their places, with the parts of each row and each column at the edges.

    images: row by row, each [B, H, W, 3] in 0..1; the pictures of a batch lie side by side
    height: of one result, in pixels
    returns: [1, H', W', 3] in 0..1
    raises: ValueError where there are more or fewer images than places
    """
    if len(images) != len(grid.rows) * len(grid.columns):
        raise ValueError(
            f"Outfit Sheet got {len(images)} image(s), but the grid has {len(grid.rows)} row(s) and {len(grid.columns)} column(s), "
            f"so {len(grid.rows) * len(grid.columns)}. Connect the images that were made from the PARTS of the same Outfit Grid, "
            "as they come from VAE Decode."
        )
    row_heads, column_heads = ([_heading(outfit) for outfit in outfits] for outfits in grid)
    cells = [in_a_row([scaled(as_given(picture), height) for picture in image]) for image in images]
    left = [max(head.width for head in row_heads)]
    top = [max(head.height for head in column_heads)]
    for column, head in enumerate(column_heads):
        left.append(max(head.width, *(cell.width for cell in cells[column::len(column_heads)])))
    for head in row_heads:
        top.append(max(head.height, height))

    sheet = Image.new("RGB", (sum(left) + GAP * (len(left) + 1), sum(top) + GAP * (len(top) + 1)), PAPER)
    table = [[None, *column_heads]]
    for row, head in enumerate(row_heads):
        table.append([head, *cells[row * len(column_heads):(row + 1) * len(column_heads)]])
    y = GAP
    for line, line_height in zip(table, top):
        x = GAP
        for tile, width in zip(line, left):
            if tile is not None:
                sheet.paste(tile, (x + (width - tile.width) // 2, y + (line_height - tile.height) // 2))
            x += width + GAP
        y += line_height + GAP
    return to_tensor(sheet)


def _heading(outfit: Outfit) -> Image.Image:
    """The outfit's parts side by side, each with its label below."""
    tiles = []
    for labelled in outfit:
        label, image, mask = labelled.part.label, labelled.part.image, labelled.part.mask
        if mask is None:
            mask = image[..., 3] if image.shape[-1] == 4 else torch.ones(image.shape[:-1])
        pictures = in_a_row([scaled(as_given(_shown(*each)), THUMBNAIL) for each in zip(image, mask)])
        tile = Image.new("RGB", (max(pictures.width, 1 + round(font().getlength(label))), THUMBNAIL + LINE), PAPER)
        tile.paste(pictures, ((tile.width - pictures.width) // 2, 0))
        ImageDraw.Draw(tile).text((tile.width / 2, THUMBNAIL), label, INK, font(), anchor="ma")
        tiles.append(tile)
    return in_a_row(tiles)


def _shown(picture: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The box around what the mask lets through. picture: [H, W, C]; mask: [H', W']"""
    places = (mask > 0).nonzero()
    if not len(places):
        return picture
    scale = torch.tensor(picture.shape[:2]) / torch.tensor(mask.shape)
    (top, left), (bottom, right) = (places.amin(0).cpu() * scale).floor().int(), ((places.amax(0).cpu() + 1) * scale).ceil().int()
    return picture[top:bottom, left:right]
