"""Draws the parts of a figure, each cut out of a picture of another, and a pose: what workflows/paper_doll.json begins with.

    python -m training.dolls.examples FOLDER --figure 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from .pairs import HEIGHT, WIDTH, Pair

FOLDER = Path(__file__).resolve().parents[2] / "workflows" / "input"
SEED, FIGURE = 5, 58
# Of other figures of the same seed, for workflows/outfit_grid.json: figure, part, number in the file's name.
FURTHER = ((5, "face", 2), (11, "upper body clothes", 2), (6, "upper body clothes", 3))


def main():
    parser = argparse.ArgumentParser(description="Draws part pictures with transparency, and a pose, for the workflow paper_doll.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--figure", type=int, default=FIGURE)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(arguments.seed, arguments.figure, WIDTH, HEIGHT)
    for label in pair.doll.wears:
        save_part(pair, label, arguments.folder / file_name(label))
    Image.fromarray(pair.pose).save(arguments.folder / file_name("pose"), optimize=True)
    if (arguments.seed, arguments.figure) == (SEED, FIGURE):
        for figure, label, number in FURTHER:
            save_part(Pair(SEED, figure, WIDTH, HEIGHT), label, arguments.folder / file_name(f"{label} {number}"))
    print(pair.doll.caption)


def file_name(part: str) -> str:
    return f"paper_doll_{part.replace(' ', '_')}.png"


def save_part(pair: Pair, label: str, path: Path):
    """Writes a part as a cut-out: transparent where the picture does not show it."""
    reference = pair.reference(label)
    picture = reference.image.convert("RGBA")
    picture.putalpha(reference.mask)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
