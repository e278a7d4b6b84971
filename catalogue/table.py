"""A table is read by Arrow, as Ray Data does it, but here: before Ray begins, and with the lines in which its rows stand."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import NamedTuple

import pyarrow
import pyarrow.csv
import pyarrow.parquet

DELIMITERS = ",;\t"


class Line(NamedTuple):
    """A row of the table as it was given.

    place: how a user finds it, such as `line 3`
    cells: by column; an empty one is None. Those of a CSV file are texts
    """

    place: str
    cells: dict


class TableError(ValueError):
    """What is wrong with a table, a line for each fault."""


def read_table(path: Path) -> list[Line]:
    """raises: TableError where it cannot be read"""
    readers = {".csv": _csv, ".tsv": _csv, ".jsonl": _json_lines, ".ndjson": _json_lines, ".parquet": _parquet}
    if path.suffix.lower() not in readers:
        raise TableError(f"'{path}' is none of {', '.join(readers)}.")
    try:
        lines = readers[path.suffix.lower()](path)
    except TableError:
        raise
    except (OSError, ValueError, csv.Error, pyarrow.ArrowException) as error:
        raise TableError(f"'{path}' cannot be read: {error}") from None
    if not lines:
        raise TableError(f"'{path}' has no rows.")
    return lines


def _csv(path: Path) -> list[Line]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        head = file.readline()
        delimiter = max(DELIMITERS, key=head.count)
        file.seek(0)
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        columns = next(rows, [])
        numbers, before = [], rows.line_num
        for row in rows:
            if row:
                numbers.append(before + 1)
            before = rows.line_num
    twice = {column for column in columns if columns.count(column) > 1}
    if twice:
        raise TableError(f"'{path}' has a column twice: {', '.join(sorted(twice))}.")
    # All as texts, since 007 is no number here and None no missing value. An empty cell is none, a quoted empty one is empty.
    cells = pyarrow.csv.read_csv(
        path, parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={column: pyarrow.string() for column in columns}, null_values=[""], strings_can_be_null=True,
            quoted_strings_can_be_null=False,
        ),
    ).to_pylist()
    if len(cells) != len(numbers):
        raise TableError(f"'{path}' cannot be read: {len(numbers)} rows by their lines, and {len(cells)} by their cells.")
    return [Line(f"line {number}", row) for number, row in zip(numbers, cells)]


def _json_lines(path: Path) -> list[Line]:
    lines, faults = [], []
    for number, text in enumerate(path.read_text(encoding="utf-8-sig").split("\n"), 1):
        if text.strip():
            try:
                lines.append(Line(f"line {number}", dict(json.loads(text))))
            except (ValueError, TypeError, RecursionError) as error:
                faults.append(f"line {number}: no JSON object ({error})")
    if faults:
        raise TableError("\n".join(faults))
    return lines


def _parquet(path: Path) -> list[Line]:
    def given(value):
        return None if isinstance(value, float) and math.isnan(value) else value

    rows = pyarrow.parquet.read_table(path).to_pylist()
    return [Line(f"row {i}", {name: given(value) for name, value in row.items()}) for i, row in enumerate(rows, 1)]
