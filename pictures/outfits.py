"""Every row of parts with every column of parts: what each picture wears."""

from __future__ import annotations

from typing import NamedTuple

from .part import LabelledPart

Outfit = tuple[LabelledPart, ...]
MOST_PICTURES, MOST_PARTS = 1024, 64


class OutfitGrid(NamedTuple):
    """rows, columns: the parts that stand for each"""

    rows: tuple[Outfit, ...]
    columns: tuple[Outfit, ...]


def cross(rows: list[Outfit], columns: list[Outfit], shared: Outfit = ()) -> tuple[OutfitGrid, list[Outfit]]:
    """Puts each row together with each column.

    rows, columns: several outfits stand for one row or column each; of a single one each part does
    shared: worn in every picture
    returns: the grid, and what each picture wears, row by row
    raises: ValueError where there are no rows or no columns, for more than MOST_PICTURES, and for more than MOST_PARTS in one
    """
    if not rows or not columns:
        raise ValueError(
            "Outfit Grid got no rows or no columns: the list that is connected is empty. Connect Encode Part Labels to both."
        )
    rows, columns = ([(part,) for part in outfits[0]] if len(outfits) == 1 else outfits for outfits in (rows, columns))
    pictures = len(rows) * len(columns)
    if pictures > MOST_PICTURES:
        raise ValueError(
            f"Outfit Grid got {len(rows)} rows and {len(columns)} columns, which makes {pictures} pictures: at most "
            f"{MOST_PICTURES} are made in one queue. Connect fewer parts; of another grid's PARTS, each of its pictures is a row."
        )
    most = max(map(len, rows)) + max(map(len, columns)) + len(shared)
    if most > MOST_PARTS:
        raise ValueError(
            f"Outfit Grid would put {most} parts into one picture: at most {MOST_PARTS} are worn at once. Connect fewer to rows, "
            "columns and shared."
        )
    return OutfitGrid(tuple(rows), tuple(columns)), [(*row, *column, *shared) for row in rows for column in columns]
