"""Draws the parts of a figure, each cut out of a picture of another, and a pose: what workflows/paper_doll.json begins with.

    python -m training.examples FOLDER --figure 7
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image

from .paper_dolls import HEIGHT, WIDTH, Pair

FOLDER = Path(__file__).resolve().parents[1] / "workflows" / "input"
SEED, FIGURE = 5, 58


def main():
    parser = argparse.ArgumentParser(description="Draws part pictures with transparency, and a pose, for the workflow paper_doll.")
    parser.add_argument("folder", type=Path, nargs="?", default=FOLDER)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--figure", type=int, default=FIGURE)
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    pair = Pair(arguments.seed, arguments.figure, WIDTH, HEIGHT)
    for label in pair.doll.wears:
        reference = pair.reference(label)
        picture = reference.image.convert("RGBA")
        picture.putalpha(reference.mask)
        picture.save(arguments.folder / f"paper_doll_{label.replace(' ', '_')}.png", optimize=True)
    Image.fromarray(pair.pose).save(arguments.folder / "paper_doll_pose.png", optimize=True)
    print(pair.doll.caption)


if __name__ == "__main__":
    main()
