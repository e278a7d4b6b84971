"""The folder of a catalogue: pictures that are there whole or not at all, and a journal that knows what each was made from."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import pyarrow
import pyarrow.csv
import pyarrow.parquet

from .rows import OURS, Row, TableError

JOURNAL, LOCK, TABLE, SHEET = f"{OURS}.jsonl", f"{OURS}.lock", OURS, f"{OURS}_sheet.jpg"
PART = f".{OURS}-"  # begins the name of a file that is not whole yet


@dataclass(frozen=True)
class Result:
    """A line of the journal and of the table.

    files: of the row's pictures; digests: their SHA-256, in the same order
    seconds: from the worker's getting the row to its giving the pictures back, of which ComfyUI itself took server_seconds
    """

    row: str
    name: str
    key: str
    files: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()
    seconds: float | None = None
    server_seconds: float | None = None
    encodings: int | None = None
    worker: str = ""
    tries: int = 0
    error: str = ""


class Results:
    """Of one run at a time.

    raises: TableError where another one is at work in the folder
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = filelock.FileLock(folder / LOCK)
        try:
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            raise TableError(f"Another run is at work in '{folder}'.") from None
        for part in folder.glob(f"{PART}*"):
            part.unlink()
        self.done: dict[str, Result] = {}  # by key
        self.owner: dict[str, str] = {}  # of each file: the key that it was made from last
        self.failed: dict[str, Result] = {}
        for result in self._read():
            self._note(result)
        self.journal = (folder / JOURNAL).open("a", encoding="utf-8")
        self.journal.write("\n")  # ends a line that was not written to its end

    def close(self):
        self.journal.close()
        self.lock.release()

    def missing(self, rows: list[Row]) -> list[Row]:
        """The rows whose pictures are not there as they were made.

        raises: TableError where a picture of that name is there that no run made
        """
        missing = [row for row in rows if not self._is_done(row)]
        there = {path.stem.casefold(): path.name for path in self.folder.iterdir() if path.name not in self.owner}
        strangers = [there[row.name.casefold()] for row in missing if row.name.casefold() in there]
        if strangers:
            raise TableError(
                f"'{self.folder}' holds files that no run of the catalogue made, and that its pictures would replace: "
                f"{', '.join(strangers[:10])}{' ...' if len(strangers) > 10 else ''}. Move them, or take another folder."
            )
        return missing

    def keep(self, row: Row, pictures: tuple[tuple[str, bytes], ...], **facts):
        """Writes the pictures of a row. What becomes of it in the midst of that, it is done again or it is there."""
        parts, files, digests = [], [], []
        try:
            for i, (kind, data) in enumerate(pictures, 1):
                part = self.folder / f"{PART}{row.key[:16]}-{i}"
                with part.open("wb") as file:
                    parts.append(part)
                    file.write(data)
                files.append(f"{row.name}{f'_{i}' if i > 1 else ''}{kind}")
                digests.append(hashlib.sha256(data).hexdigest())
            result = Result(row.place, row.name, row.key, tuple(files), tuple(digests), **facts)
            before = self.owner.get(files[0])
            # First the journal: a file in its place without a line there would count as a stranger's.
            self.journal.write(json.dumps(asdict(result)) + "\n")
            self.journal.flush()
            os.fsync(self.journal.fileno())
            for part, name in zip(parts, files):
                part.replace(self.folder / name)
            if before in self.done:
                for name in set(self.done[before].files) - set(files):
                    (self.folder / name).unlink(missing_ok=True)
            self._note(result)
        finally:
            for part in parts:
                part.unlink(missing_ok=True)

    def fail(self, row: Row, **facts):
        self.failed[row.key] = Result(row.place, row.name, row.key, **facts)

    def of(self, row: Row) -> Result:
        """What became of a row so far."""
        unknown = Result(row.place, row.name, row.key, error="not drawn yet")
        return self.failed.get(row.key) or self.done.get(row.key) or unknown

    def write_table(self, rows: list[Row]):
        """The table of the run: as CSV and as Parquet."""
        results = [self.of(row) for row in rows]
        columns = {
            "row": ([row.place for row in rows], pyarrow.string()), "name": ([row.name for row in rows], pyarrow.string()),
            "file": ([next(iter(result.files), None) for result in results], pyarrow.string()),
            "pictures": ([len(result.files) for result in results], pyarrow.int64()),
        }
        for name, kind in (("seconds", pyarrow.float64()), ("server_seconds", pyarrow.float64()), ("encodings", pyarrow.int64()),
                           ("worker", pyarrow.string()), ("tries", pyarrow.int64())):
            columns[name] = [getattr(result, name) for result in results], kind
        columns["error"] = [_as_cell(result.error) for result in results], pyarrow.string()
        table = pyarrow.table({name: pyarrow.array(*column) for name, column in columns.items()})
        for kind, write in ((".parquet", pyarrow.parquet.write_table), (".csv", pyarrow.csv.write_csv)):
            part = self.folder / f"{PART}table{kind}"
            write(table, part)
            part.replace(self.folder / f"{TABLE}{kind}")

    def _read(self) -> list[Result]:
        results = []
        with suppress(FileNotFoundError):
            for line in (self.folder / JOURNAL).read_text(encoding="utf-8").split("\n"):
                with suppress(ValueError, TypeError, KeyError):  # a line that was being written when the power went
                    entry = json.loads(line)
                    result = Result(**{**entry, "files": tuple(entry["files"]), "digests": tuple(entry["digests"])})
                    if all(Path(name).name == name and name[0] != "." for name in result.files):
                        results.append(result)
        return results

    def _note(self, result: Result):
        self.done[result.key] = result
        self.owner.update(dict.fromkeys(result.files, result.key))
        self.failed.pop(result.key, None)

    def _is_done(self, row: Row) -> bool:
        result = self.done.get(row.key)
        try:
            return result is not None and result.digests == tuple(
                hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in result.files
            )
        except OSError:
            return False


def _as_cell(text: str) -> str:
    """What a server said, so that no spreadsheet takes it for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") and text else text
