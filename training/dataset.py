"""Samples to train on, and the reader of datasets in the format of DeepFashion-MultiModal-Parts2Whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .config import DataConfig


class ReferencePicture(NamedTuple):
    """A picture (RGB) that shows a part, its label, and a mask (L) of where.

    shown: [H, W] in 0..1, how much of its pattern's colour the part shows at each pixel; None where nobody knows, as of targets
    """

    label: str
    image: Image.Image
    mask: Image.Image
    shown: np.ndarray | None = None


class Known(NamedTuple):
    """What is known of a target besides its picture.

    regions: where each reference's part is (L)
    details: where small things are that count more (L)
    amounts: [K, H, W] in 0..1, for each kind of pattern how much of its second colour it would show at each pixel, if the cloth
        there had that kind; what lies over cloth, such as arms and hems, is left out of account
    kinds: for each reference the number of its part's kind: 0 for plain cloth, 1..K for its patterns, above for what other parts
        are told apart by; -1 for none
    all_kinds: how many of them there are
    colours: [R, 6], RGB in 0..1 of each reference's part, and of its pattern or of a face's eyes
    """

    regions: tuple[Image.Image, ...]
    details: Image.Image
    amounts: np.ndarray
    kinds: tuple[int, ...]
    all_kinds: int
    colours: np.ndarray


class Sample(NamedTuple):
    """A picture to draw, what says how, and what the person in it wears, seen elsewhere.

    pose: an IUV picture, or None; known: None where nobody knows more
    """

    target: Image.Image
    caption: str
    references: tuple[ReferencePicture, ...]
    pose: Image.Image | None
    known: Known | None = None


class PartsDataset:
    """A folder on disk: a jsonl file of rows, each naming pictures relative to the folder.

    A row: `target`, `caption`, `appearance` {label: picture}, `mask` {label: picture}, `structure` {kind: picture}; where
    its target_id and reference_id differ, the references show the same things in another picture.

    rows: the jsonl file
    structure: the kind of pose picture to take, `densepose` or `openpose`
    raises: ValueError for a row that lacks something or names a picture outside the folder, with its line; where a link leads
        outside, when it is read
    """

    def __init__(self, rows: Path, structure: str = "densepose"):
        self.file, self.folder, self.structure = rows, rows.parent.resolve(), structure
        self.rows, self.numbers = [], []
        for number, line in enumerate(rows.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip():
                continue
            row = json.loads(line)
            missing = sorted({"target", "caption", "appearance", "mask"} - row.keys())
            missing += [f"mask of {label}" for label in row.get("appearance", {}) if label not in row.get("mask", {})]
            if missing:
                raise ValueError(f"{rows}, line {number}: lacks {', '.join(missing)}.")
            paths = [row["target"], *row["appearance"].values(), *row["mask"].values(), *row.get("structure", {}).values()]
            for path in map(Path, paths):
                if path.anchor or ".." in path.parts:
                    raise self._outside(number, path)
            self.rows.append(row)
            self.numbers.append(number)
        if not self.rows:
            raise ValueError(f"{rows} has no rows.")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[index]
        pose = row.get("structure", {}).get(self.structure)
        return Sample(
            self._read(index, row["target"], "RGB"),
            row["caption"],
            tuple(
                ReferencePicture(label, self._read(index, path, "RGB"), self._read(index, row["mask"][label], "L"))
                for label, path in row["appearance"].items()
            ),
            pose and self._read(index, pose, "RGB"),
        )

    def picture(self, index: int) -> Image.Image:
        """One picture of a sample: the target of every second, of the others the references in turns."""
        row = self.rows[index]
        references = list(row["appearance"].values())
        return self._read(index, references[index // 2 % len(references)] if index % 2 and references else row["target"], "RGB")

    def _read(self, index: int, path: str, mode: str) -> Image.Image:
        file = (self.folder / path).resolve()
        if not file.is_relative_to(self.folder):
            raise self._outside(self.numbers[index], path)
        with Image.open(file) as image:
            return image.convert(mode)

    def _outside(self, number: int, path: Path | str) -> ValueError:
        return ValueError(
            f"{self.file}, line {number}: {str(path)!r} is not within {self.folder}. Rows name pictures relative to the folder of "
            "their file: put the picture there."
        )


def open_dataset(config: DataConfig):
    """raises: ValueError where the configuration names no data"""
    if config.rows:
        return PartsDataset(Path(config.rows), config.structure)
    if config.paper_dolls:
        from .paper_dolls.pairs import PaperDolls

        return PaperDolls(config.paper_dolls, config.seed, config.width, config.height)
    raise ValueError(
        "The configuration names no data: set data.rows to a jsonl file, or data.paper_dolls to a number of samples."
    )
