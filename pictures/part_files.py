"""Several parts at once, from picture files, each with its label."""

from __future__ import annotations

import os
import re

import folder_paths

from .part import LABELS, Part, escaped
from .part_file import read_part
from .picture_file import list_pictures_in, picture_path

BY_FILE_NAME = "by file name"
NO_FOLDER = "none"
MOST_PARTS = 64
# Words of a file's name that say a label, beside the label itself. Of a longer word none is meant: a surface is no face.
_SAY = {"hair or headwear": ("hair", "headwear"), "face": ("face",), "shoes": ("shoes",)}


def list_folders() -> list[str]:
    """The folders in the input folder that hold pictures, and first that none is chosen."""
    root = folder_paths.get_input_directory()
    folders = sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and list_pictures_in(entry.name))
    return [NO_FOLDER, *folders]


def names_of(images: str, folder: str) -> list[str]:
    """The files that are meant: all pictures of the folder, or else those that were chosen.

    images: names in the input folder, one on each line
    folder: one of `list_folders`
    raises: ValueError for none, for more than MOST_PARTS, and for what is not a picture inside the input folder
    """
    if folder != NO_FOLDER:
        names = list_pictures_in(folder)
        if not names:
            raise ValueError(f"Load Parts found no picture in the folder '{escaped(folder)}' of ComfyUI's input folder.")
    else:
        names = [name for line in str(images or "").splitlines() if (name := line.strip())]
    if not names:
        raise ValueError("Load Parts got no picture: choose several by its button, drop them on it, or choose a folder.")
    if len(names) > MOST_PARTS:
        raise ValueError(f"Load Parts got {len(names)} pictures, and at most {MOST_PARTS} are read: choose fewer.")
    for name in names:
        picture_path(name)
    return names


def read_parts(names: list[str], label: str, mask_source: str) -> tuple[Part, ...]:
    """A part of each picture.

    label: of all of them; BY_FILE_NAME: as `label_of` tells
    mask_source: as for `read_part`
    raises: ValueError as `read_part` does, with the file's name
    """
    parts = []
    for name in names:
        try:
            parts.append(read_part(name, label_of(name) if label == BY_FILE_NAME else label, mask_source, None))
        except ValueError as error:
            raise ValueError(f"'{escaped(name)}': {error}") from None
    return tuple(parts)


def label_of(name: str) -> str:
    """The label that a file's name holds, for example `my_upper_body_clothes_2.png`; else the name itself, without numbers: `red
    scarf 2.jpg` is a red scarf."""
    plain, _ = folder_paths.annotated_filepath(name)
    words = re.sub(r"[\W_]+", " ", os.path.splitext(os.path.basename(plain))[0].lower()).strip()
    for label in sorted(LABELS, key=len, reverse=True):
        if any(f" {word} " in f" {words} " for word in (label, *_SAY.get(label, ()))):
            return label
    return re.sub(r"(\s|^)\d+(?=\s|$)", "", words).strip() or words
