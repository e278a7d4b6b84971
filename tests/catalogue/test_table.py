"""Tables as people write them, and what the command says of those that are wrong, before anything runs."""

import pyarrow
import pyarrow.parquet
import pytest
from harness.catalogues import API

from catalogue.__main__ import main
from catalogue.table import TableError, read_table


def read(tmp_path, name, data):
    (tmp_path / name).write_bytes(data)
    return [(line.place, line.cells) for line in read_table(tmp_path / name)]


def test_csv_cells_are_texts_and_empty_ones_are_none(tmp_path):
    data = b'\xef\xbb\xbfface,prompt,seed\na.png,"two\nlines",007\n\nb.png,"",\nc.png,,NA\n'
    assert read(tmp_path, "a.csv", data) == [
        ("line 2", {"face": "a.png", "prompt": "two\nlines", "seed": "007"}),
        ("line 5", {"face": "b.png", "prompt": "", "seed": None}),
        ("line 6", {"face": "c.png", "prompt": None, "seed": "NA"}),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_as_other_countries_write_it(tmp_path, delimiter):
    data = 'face;prompt\nä.png;"x, y"\n'.replace(";", delimiter).encode()
    assert read(tmp_path, "a.csv", data) == [("line 2", {"face": "ä.png", "prompt": "x, y"})]


def test_json_lines_keep_their_numbers(tmp_path):
    data = b'{"face": "a.png"}\n\n{"seed": 18446744073709551615, "prompt": null, "16.cfg": 2.5}\n'
    assert read(tmp_path, "a.jsonl", data) == [
        ("line 1", {"face": "a.png"}), ("line 3", {"seed": 2**64 - 1, "prompt": None, "16.cfg": 2.5}),
    ]


def test_parquet(tmp_path):
    pyarrow.parquet.write_table(pyarrow.table({"face": ["a", None], "seed": [1.0, float("nan")]}), tmp_path / "a.parquet")
    assert [(line.place, line.cells) for line in read_table(tmp_path / "a.parquet")] == [
        ("row 1", {"face": "a", "seed": 1.0}), ("row 2", {"face": None, "seed": None}),
    ]


@pytest.mark.parametrize("name, data, words", [
    ("a.csv", "face\nü.png".encode("latin1"), "'utf-8' codec can't decode"),
    ("a.csv", b"face,face\na,b\n", "a column twice: face"),
    ("a.csv", b"face,prompt\na\n", "Expected 2 columns, got 1"), ("a.csv", b"", "cannot be read"),
    ("a.csv", b"face\n", "has no rows"),
    ("a.jsonl", b'{"a": 1}\n[1]\n{', "line 2: no JSON object .*\nline 3: no JSON object"), ("a.xlsx", b"x", "is none of .csv"),
    ("a.parquet", b"x", "cannot be read"),
])
def test_what_is_no_table(tmp_path, name, data, words):
    with pytest.raises(TableError, match=words):
        read(tmp_path, name, data)


def test_the_command_lists_the_faults_and_begins_nothing(tmp_path, capsys):
    (tmp_path / "rows.csv").write_text("face,gloves\ngone.png,x\n")
    command = [str(tmp_path / "rows.csv"), "--workflow", str(API), "--out", str(tmp_path / "out")]
    assert main(command) == 2 and "'gloves' is no column" in capsys.readouterr().err
    (tmp_path / "rows.csv").write_text("face,seed\ngone.png,x\ngone.png,1\n")
    assert main(command) == 2
    assert [line.split(": ")[:2] for line in capsys.readouterr().err.splitlines()] == [
        ["line 2", "face"], ["line 2", "seed"], ["line 3", "face"],
    ]
    (tmp_path / "rows.csv").write_text("seed\n1\n")
    command[2] = str(tmp_path / "rows.csv")
    assert main(command) == 2 and "cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize("option", [
    ("--server", "ftp://host"), ("--from", "https://example.com/path"), ("--from", "example.com"), ("--header", "no header"),
])
def test_options_that_cannot_be(tmp_path, option, capsys):
    with pytest.raises(SystemExit):
        main(["rows.csv", "--workflow", str(API), "--out", str(tmp_path), *option])
    said = capsys.readouterr().err
    assert option[1] in said or "a header is NAME: VALUE" in said
