"""Draws the parts of a figure, each cut out of a picture of another, and a pose: what workflows/paper_doll.json begins with.

    python -m training.paper_dolls.examples FOLDER --figure 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from .pairs import HEIGHT, WIDTH, Pair

FOLDER = Path(__file__).resolve().parents[2] / "workflows" / "input"
# None of the figures that models/paper_doll was trained on: of this seed the first thousand.
SEED, FIGURE = 5, 13918
NAMES = {"hair or headwear": "hat", "upper body clothes": "top", "lower body clothes": "trousers"}
# Of other figures of the same seed, for workflows/outfit_grid.json and two_people.json: figure, part, number in the file's name.
FURTHER = ((1025, "face", 2), (1126, "upper body clothes", 2), (1014, "upper body clothes", 3), (8943, "pose", 2))


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
    save_pose(pair, arguments.folder / file_name("pose"))
    if (arguments.seed, arguments.figure) == (SEED, FIGURE):
        for figure, part, number in FURTHER:
            other, path = Pair(SEED, figure, WIDTH, HEIGHT), arguments.folder / file_name(part, number)
            if part == "pose":
                save_pose(other, path)
            else:
                save_part(other, part, path)
    print(pair.doll.caption)


def file_name(part: str, number: int = 1) -> str:
    """Of a label, or of a pose: short, so that nodes show it whole."""
    return f"doll_{NAMES.get(part, part)}{f'_{number}' if number > 1 else ''}.png"


def save_pose(pair: Pair, path: Path):
    Image.fromarray(pair.pose).save(path, optimize=True)


def save_part(pair: Pair, label: str, path: Path):
    """Writes a part as a cut-out: transparent where the picture does not show it."""
    reference = pair.reference(label)
    picture = reference.image.convert("RGBA")
    picture.putalpha(reference.mask)
    picture.save(path, optimize=True)


if __name__ == "__main__":
    main()
