"""Writes the pictures of workflows/paper_doll.json: the parts of one figure, each cut out of a picture of another, and a pose.

    python -m training.examples
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from .paper_dolls import HEIGHT, WIDTH, Pair

FOLDER = Path(__file__).resolve().parents[1] / "workflows" / "input"
SEED, FIGURE = 5, 8


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    pair = Pair(SEED, FIGURE, WIDTH, HEIGHT)
    for label in pair.doll.wears:
        reference = pair.reference(label)
        picture = reference.image.convert("RGBA")
        picture.putalpha(reference.mask)
        picture.save(FOLDER / f"paper_doll_{label.replace(' ', '_')}.png", optimize=True)
    Image.fromarray(pair.pose).save(FOLDER / "paper_doll_pose.png", optimize=True)
    print(pair.doll.caption)


if __name__ == "__main__":
    main()
