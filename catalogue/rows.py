"""Every row of a table becomes what it changes of the workflow, or a fault. All faults are found before anything runs."""

from __future__ import annotations

import copy
import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image
from workflow_changes import Changes, NoPlace, Slot, change, find_parts
from yarl import URL

from .table import Line, TableError

NUMBERS = {"seed": (0, 2**64 - 1), "width": (16, 16384), "height": (16, 16384)}
TEXTS = ("prompt", "negative")
OTHERS = ("name", "pose", *TEXTS, *NUMBERS)
LARGEST_PICTURE = 64 * 2**20  # bytes; ComfyUI takes 100 MB at once
MOST_FAULTS = 50  # that are shown
# What every file system takes, and what is no option and no formula to anything that reads a list of names.
NAME = re.compile(r"\w[\w .()-]{0,99}(?<![ .])")
OURS = "catalogue"  # and what begins with it and an underscore: the files of the run itself


class Picture(NamedTuple):
    """A picture that a row names.

    name: of the file, without its folder
    source: a path here, or a URL
    digest: of what is in it, by SHA-256; of a URL: of the URL
    """

    name: str
    source: Path | str
    digest: str


@dataclass(frozen=True)
class Row:
    """place: how a user finds it in the table. key: of its name and of all that its picture is made from. worn: by label, what is
    encoded for it"""

    place: str
    name: str
    changes: Changes
    key: str
    worn: tuple[tuple[str, str], ...] = ()


class Pictures:
    """The pictures that a table may name: files in a folder, and URLs of given origins.

    folder: relative paths begin here, and no path leads out of it, links followed
    origins: such as https://example.com
    """

    def __init__(self, folder: Path, origins: list[URL]):
        self.folder, self.origins, self.known = folder.resolve(), origins, {}

    def find(self, text: str) -> Picture:
        """raises: ValueError where there is no such picture, or it may not be taken"""
        if text not in self.known:
            try:
                self.known[text] = self._url(text) if "://" in text else self._file(text)
            except ValueError as error:
                self.known[text] = error
        if isinstance(self.known[text], ValueError):
            raise self.known[text]
        return self.known[text]

    def _url(self, text: str) -> Picture:
        url = URL(text)
        if url.scheme not in ("http", "https") or not url.host or url.user or url.origin() not in self.origins:
            allowed = ", ".join(map(str, self.origins)) or "none"
            raise ValueError(f"'{text}' is of no origin from which pictures are taken ({allowed}): name it by --from")
        return Picture(url.name or "picture", str(url), hashlib.sha256(str(url).encode()).hexdigest())

    def _file(self, text: str) -> Picture:
        try:
            path = (self.folder / text).resolve()
            if not path.is_relative_to(self.folder):
                raise ValueError(f"'{text}' lies outside of '{self.folder}', from where pictures are taken: see --pictures")
            if not path.is_file():
                raise ValueError(f"there is no picture '{text}' in '{self.folder}'")
            with Image.open(path):  # reads the head only
                pass
            if path.stat().st_size > LARGEST_PICTURE:
                raise ValueError(f"'{text}' has more than {LARGEST_PICTURE >> 20} MiB")
            return Picture(Path(text).name, path, hashlib.sha256(path.read_bytes()).hexdigest())
        except (OSError, Image.DecompressionBombError) as error:
            raise ValueError(f"'{text}' is no picture that can be read ({error})") from None


def check(lines: list[Line], workflow: dict, pictures: Pictures) -> list[Row]:
    """raises: TableError with all faults of the table"""
    faults = _columns(lines, workflow)
    rows, names = [], {}
    for i, line in enumerate(lines if not faults else (), 1):
        try:
            row = _row(line, workflow, pictures, f"{i:0{max(5, len(str(len(lines))))}}")
        except TableError as error:
            faults += [f"{line.place}: {fault}" for fault in str(error).split("\n")]
            continue
        other = names.setdefault(row.name.casefold(), line.place)
        if other != line.place:
            faults.append(f"{line.place}: the name '{row.name}' is that of {other} too")
        rows.append(row)
    # The second picture of `a` is a_2.
    faults += [
        f"{row.place}: the name '{row.name}' is taken by the further pictures of {names[first]}" for row in rows
        if (first := re.sub(r"_\d+$", "", row.name.casefold())) != row.name.casefold() and first in names
    ]
    if faults:
        more = f"\n... and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
        raise TableError("\n".join(faults[:MOST_FAULTS]) + more)
    return rows


def changed(workflow: dict, row: Row) -> tuple[dict, list[Slot]]:
    """A workflow of its own for a row, and where its pictures go."""
    workflow = copy.deepcopy(workflow)
    return workflow, change(workflow, row.changes)


def _columns(lines: list[Line], workflow: dict) -> list[str]:
    parts, faults = find_parts(workflow), []
    for column in dict.fromkeys(column for line in lines for column in line.cells):
        node, _, widget = column.partition(".")
        label = column.removesuffix(" mask").removesuffix("#1")
        if column not in OTHERS and label not in parts and not (widget and node in workflow) and not column.startswith("#"):
            where = next(line.place for line in lines if column in line.cells) if len({*map(tuple, map(_names, lines))}) > 1 else ""
            faults.append(
                f"{where + ': ' if where else ''}'{column}' is no column that this workflow knows: a part ({', '.join(parts)}) or "
                f"its mask ('face mask'), one of {', '.join(OTHERS)}, or a NODE.INPUT such as 16.steps. One that begins with # is "
                "passed over."
            )
    return faults


def _names(line: Line) -> list[str]:
    return [*line.cells]


def _row(line: Line, workflow: dict, pictures: Pictures, number: str) -> Row:
    parts, without, masks, widgets, others, faults = {}, [], {}, {}, {}, []
    labels = find_parts(workflow)
    for column, value in line.cells.items():
        try:
            if column.startswith("#"):
                continue
            if value is not None and not isinstance(value, (str, int, float, bool)):
                raise ValueError(f"it holds {type(value).__name__}, and not a text or a number")
            if column in OTHERS:
                if value is not None:
                    others[column] = _other(column, value, pictures)
            elif column.removesuffix("#1") in labels:
                if value in (None, ""):
                    without.append(column)
                else:
                    parts[column] = pictures.find(str(value))
            elif column.removesuffix(" mask").removesuffix("#1") in labels:
                if value not in (None, ""):
                    masks[column.removesuffix(" mask")] = pictures.find(str(value))
            elif value is not None:
                node, _, widget = column.partition(".")
                widgets[node, widget] = value
        except ValueError as error:
            faults.append(f"{column}: {error}")
    masked = [label for label in masks if label in without]
    faults += [f"{label} mask: there is a mask and no picture" for label in masked]
    name = others.pop("name", number)
    changes = Changes(parts=parts, masks=masks, without=tuple(without), widgets=widgets, **others)
    if not faults:
        try:
            return _keyed(line.place, name, changes, workflow)
        except NoPlace as error:
            faults.append(str(error))
    raise TableError("\n".join(faults))


def _keyed(place: str, name: str, changes: Changes, workflow: dict) -> Row:
    workflow, slots = changed(workflow, Row(place, name, changes, ""))
    for slot in slots:
        slot.inputs[slot.name] = [slot.picture.name, slot.picture.digest]
    key = hashlib.sha256(json.dumps([name, workflow], sort_keys=True).encode()).hexdigest()
    pictures = {**changes.parts, **{f"{label} mask": picture for label, picture in changes.masks.items()}}
    worn = {**{label: picture.digest for label, picture in pictures.items()}, "size": f"{changes.width}x{changes.height}"}
    return Row(place, name, changes, key, tuple(worn.items()))


def _other(column: str, value, pictures: Pictures):
    if column in NUMBERS:
        least, most = NUMBERS[column]
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, str) and re.fullmatch(r"\s*\d{1,20}\s*", value, re.ASCII):
            value = int(value)
        if type(value) is not int or not least <= value <= most or column != "seed" and value % 8:
            kind = "a whole number" if column == "seed" else "a multiple of 8"
            raise ValueError(f"'{value}' is not {kind} from {least} to {most}")
        return value
    if column == "pose":
        return pictures.find(str(value))
    if column == "name" and (not NAME.fullmatch(str(value)) or str(value).casefold().split("_")[0] == OURS):
        raise ValueError(
            f"'{value}' cannot name a file: it takes letters, digits, and '_ .()-' behind the first, at most 100, no '{OURS}'"
        )
    return str(value)
