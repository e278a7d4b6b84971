"""A procedural dataset: pairs of a doll and reference pictures of what it wears, on other dolls.

    python -m training.paper_dolls.pairs FOLDER --count 1000 --seed 0

writes it in the on-disk format of DeepFashion-MultiModal-Parts2Whole, for `training.dataset`. `PaperDolls` makes the same
samples as they are asked for.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..dataset import Known, ReferencePicture, Sample
from .body import SIDES, View
from .canvas import coverage
from .draw import Drawing, draw_doll
from .figure import EYE_COLOURS, FACE, PATTERNED, PATTERNS, Doll, Wear, random_doll
from .head import eye, mouth
from .pattern import pattern_amount
from .pose import draw_pose

WIDTH, HEIGHT = 256, 384


class Pair:
    """A target and its references. Everything is drawn from (seed, index), the same on every machine.

    doll, view: of the target; drawing: its picture, and the true region of each part in it
    """

    def __init__(self, seed: int, index: int, width: int = WIDTH, height: int = HEIGHT):
        self.seed, self.index = seed, index
        rng = np.random.default_rng([seed, index])
        self.doll = random_doll(rng)
        scale = height * rng.uniform(0.84, 0.93)
        bottom = height * rng.uniform(0.95, 0.975)
        self.view = View(width, height, scale, np.array([width / 2 + rng.uniform(-0.04, 0.04) * width, bottom - scale]))

    def with_wear(self, label: str, wear: Wear) -> Pair:
        """The same figure, wearing something else. Its references show that."""
        other = copy.copy(self)
        other.doll = dataclasses.replace(self.doll, wears={**self.doll.wears, label: wear})
        return other

    @property
    def drawing(self) -> Drawing:
        return draw_doll(self.doll, self.view)

    @property
    def pose(self) -> np.ndarray:
        return draw_pose(self.doll.body, self.view)

    def known(self, drawing: Drawing) -> Known:
        """What training is told of the target. Kinds are the patterns, then the colours of eyes; details are irises and mouths."""
        doll = self.doll
        features = [eye(doll.body, sign)[0] for sign in SIDES.values()] + mouth(doll.body, doll.wears[FACE])[0]
        return Known(
            tuple(_mask(drawing.regions[label]) for label in doll.wears),
            _mask(coverage(self.view, features) * drawing.regions[FACE]),
            _amounts(drawing, self.view, PATTERNS[1:]), tuple(_kind(label, wear) for label, wear in doll.wears.items()),
            len(PATTERNS) + len(EYE_COLOURS), np.array([np.concatenate(wear.colours) for wear in doll.wears.values()]),
        )

    def reference(self, label: str, take: int = 0) -> ReferencePicture:
        """The part on another figure, in another pose, at another scale, with other clothes around it.

        take: another number gives another such picture
        """
        number = list(self.doll.wears).index(label)
        rng = np.random.default_rng([self.seed, self.index, 1 + number, take])
        while True:
            wear = self.doll.wears[label]
            other = random_doll(rng, {label: wear})
            view = self._closer(rng, other, label)
            drawing = draw_doll(other, view)
            # A coat may hide what is to be seen.
            if drawing.regions[label].sum() > 0.01 * self.view.width * self.view.height:
                region = drawing.regions[label]
                patterned = label in PATTERNED and wear.pattern != "plain"
                # Only its own cloth, not the other figure's.
                shown = region * _amounts(drawing, view, [wear.pattern])[0] if patterned else np.zeros_like(region)
                return ReferencePicture(label, Image.fromarray(drawing.image), _mask(region), shown)

    def _closer(self, rng: np.random.Generator, doll: Doll, label: str) -> View:
        """A view in which the part is larger than in the whole figure, and inside the frame."""
        width, height = self.view.width, self.view.height
        # A small drawing is enough to find the part.
        small = View(width // 4, height // 4, 0.9 * height // 4, np.array([width / 2, 0.06 * height]) / 4)
        whole = View(width, height, 4 * small.scale, 4 * small.offset)
        region = 4 * np.argwhere(draw_doll(doll, small).regions[label] > 0.3)
        if not len(region):
            return whole
        (top, left), (bottom, right) = region.min(0), region.max(0) + 4
        room = min(0.92 * width / (right - left), 0.92 * height / (bottom - top))
        zoom = min(rng.uniform(1.0, 3.0), max(room, 0.8))
        middle = np.array([(left + right) / 2, (top + bottom) / 2])
        free = np.maximum(np.array([width - zoom * (right - left), height - zoom * (bottom - top)]), 0) / 2
        centre = np.array([width / 2, height / 2]) + rng.uniform(-0.6, 0.6, 2) * free
        return View(width, height, zoom * whole.scale, centre + zoom * (whole.offset - middle))


class PaperDolls:
    """`count` samples, drawn when they are asked for."""

    def __init__(self, count: int, seed: int, width: int = WIDTH, height: int = HEIGHT):
        self.count, self.seed, self.width, self.height = count, seed, width, height

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.count:
            raise IndexError(index)
        pair = Pair(self.seed, index, self.width, self.height)
        drawing = pair.drawing
        return Sample(
            Image.fromarray(drawing.image),
            pair.doll.caption,
            tuple(pair.reference(label) for label in pair.doll.wears),
            Image.fromarray(pair.pose),
            pair.known(drawing),
        )

    def picture(self, index: int) -> Image.Image:
        """One picture of a sample: the target of every second, of the others the references in turns."""
        pair = Pair(self.seed, index, self.width, self.height)
        if index % 2 == 0:
            return Image.fromarray(pair.drawing.image)
        labels = list(pair.doll.wears)
        return pair.reference(labels[index // 2 % len(labels)]).image


def write(dataset: PaperDolls, folder: Path):
    """Writes all samples in the layout of DeepFashion-MultiModal-Parts2Whole: `train.jsonl`, and pictures as JPEG but the pose."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.jsonl").open("w") as rows:
        for i, sample in enumerate(dataset):
            name = f"{dataset.seed}-{i:06}"
            row = {
                "target_id": name, "reference_id": f"{name}-reference", "target": f"target/{name}.jpg", "caption": sample.caption,
                "appearance": {}, "structure": {"densepose": f"densepose/{name}.png"}, "mask": {},
            }
            _save(sample.target, folder / row["target"])
            _save(sample.pose, folder / row["structure"]["densepose"])
            for reference in sample.references:
                part = reference.label.replace(" ", "_")
                row["appearance"][reference.label] = f"{part}/{name}_rgb.jpg"
                row["mask"][reference.label] = f"{part}/{name}_mask.jpg"
                _save(reference.image, folder / row["appearance"][reference.label])
                _save(reference.mask, folder / row["mask"][reference.label])
            rows.write(json.dumps(row) + "\n")


def _kind(label: str, wear: Wear) -> int:
    if label in PATTERNED:
        return PATTERNS.index(wear.pattern)
    return len(PATTERNS) + EYE_COLOURS.index(wear.colours[1]) if label == FACE else -1


def _amounts(drawing: Drawing, view: View, kinds: Sequence[str]) -> np.ndarray:
    """How much of its second colour each kind of pattern would show on the cloth of a drawing. [K, H, W] in 0..1"""
    y, x = np.mgrid[: view.height, : view.width] + 0.5
    amounts = np.zeros((len(kinds), view.height, view.width), np.float32)
    for where, cover, frame in drawing.cloths:
        for amount, kind in zip(amounts, kinds):
            here = amount[where[1:]]
            here += cover * (pattern_amount(kind, x[where[1:]], y[where[1:]], view, frame) - here)
    return amounts


def _mask(region: np.ndarray) -> Image.Image:
    return Image.fromarray((region * 255).round().astype(np.uint8))


def _save(image: Image.Image, path: Path):
    path.parent.mkdir(exist_ok=True)
    options = {"quality": 95, "subsampling": 0} if path.suffix == ".jpg" else {}
    image.save(path, **options)


def main():
    parser = argparse.ArgumentParser(description="Writes a dataset of dolls.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    write(PaperDolls(arguments.count, arguments.seed), arguments.folder)


if __name__ == "__main__":
    main()
