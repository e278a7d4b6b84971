"""The folder of a catalogue, whatever became of the run before."""

import csv
import hashlib
import json

import pytest

from catalogue.results import Results
from catalogue.rows import Changes, Row
from catalogue.table import TableError

FACTS = {"seconds": 1.0, "server_seconds": 0.9, "encodings": 1, "worker": "a", "tries": 1}


def row(name, key="0" * 64):
    return Row(f"line of {name}", name, Changes(), key)


def keep(folder, *named):
    results = Results(folder)
    for each, pictures in named:
        results.keep(each, pictures, **FACTS)
    results.close()


def missing(folder, *rows):
    results = Results(folder)
    try:
        return [each.name for each in results.missing(list(rows))]
    finally:
        results.close()


def test_what_was_kept_is_not_missing(tmp_path):
    one, two = row("one", "1" * 64), row("two", "2" * 64)
    keep(tmp_path, (one, ((".png", b"1"), (".webp", b"2"))))
    assert (tmp_path / "one.png").read_bytes() == b"1" and (tmp_path / "one_2.webp").read_bytes() == b"2"
    assert missing(tmp_path, one, two) == ["two"] and not [*tmp_path.glob(".*")]
    (tmp_path / "one_2.webp").write_bytes(b"3")
    assert missing(tmp_path, one) == ["one"]


def test_a_row_that_is_another_one_now_is_drawn_again(tmp_path):
    keep(tmp_path, (row("one", "1" * 64), ((".png", b"1"), (".png", b"2"))))
    assert missing(tmp_path, row("one", "2" * 64)) == ["one"]
    keep(tmp_path, (row("one", "2" * 64), ((".png", b"3"),)))
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["one.png"] and missing(tmp_path, row("one", "2" * 64)) == []
    assert missing(tmp_path, row("one", "1" * 64)) == ["one"]


def test_a_run_that_ended_between_the_journal_and_the_picture(tmp_path):
    """The older picture of that name does not count as the new one."""
    keep(tmp_path, (row("one", "1" * 64), ((".png", b"1"),)))
    journal = (tmp_path / "catalogue.jsonl").read_text()
    entry = json.loads(journal.strip()) | {"key": "2" * 64, "digests": [hashlib.sha256(b"2").hexdigest()]}
    (tmp_path / "catalogue.jsonl").write_text(journal + json.dumps(entry) + "\n" + '{"row": "line 3", "na')
    assert missing(tmp_path, row("one", "2" * 64)) == ["one"]
    keep(tmp_path, (row("two", "3" * 64), ((".png", b"4"),)))
    assert missing(tmp_path, row("two", "3" * 64)) == [], "what follows a torn line is read"


@pytest.mark.parametrize("name", ["../mine.png", "/tmp/mine.png", "..", "sub/mine.png"])
def test_a_journal_cannot_name_files_elsewhere(tmp_path, name):
    out = tmp_path / "out"
    keep(out, (row("one", "1" * 64), ((".png", b"1"),)))
    (tmp_path / "mine.png").write_bytes(b"mine")
    entry = json.loads((out / "catalogue.jsonl").read_text().strip()) | {"files": ["one.png", name]}
    (out / "catalogue.jsonl").write_text(json.dumps(entry) + "\n")
    (out / "one.png").unlink()
    keep(out, (row("one", "2" * 64), ((".png", b"3"),)))
    assert (tmp_path / "mine.png").read_bytes() == b"mine"


def test_what_no_run_made_is_not_replaced(tmp_path):
    (tmp_path / "One.jpg").write_bytes(b"mine")
    with pytest.raises(TableError, match="no run of the catalogue made.*One.jpg"):
        missing(tmp_path, row("one"))


def test_one_run_at_a_time(tmp_path):
    results = Results(tmp_path)
    with pytest.raises(TableError, match="Another run is at work"):
        Results(tmp_path)
    results.close()
    Results(tmp_path).close()


def test_no_cell_of_the_table_is_a_formula(tmp_path):
    results, rows = Results(tmp_path), [row("one", "1" * 64), row("two", "2" * 64), row("three", "3" * 64)]
    results.fail(rows[0], worker="a", tries=3, error='=HYPERLINK("http://evil")\nsecond line')
    results.keep(rows[1], ((".png", b"1"),), **FACTS)
    results.write_table(rows)
    results.close()
    with (tmp_path / "catalogue.csv").open(newline="") as file:
        cells = [*csv.DictReader(file)]
    assert [each["error"] for each in cells] == ["'=HYPERLINK(\"http://evil\")\nsecond line", "", "not drawn yet"]
    assert [each["file"] for each in cells] == ["", "two.png", ""] and cells[1]["encodings"] == "1"
