"""What a row of a table may be, without Ray and without a server."""

import json

import pytest
from harness.host import ROOT
from PIL import Image
from yarl import URL

from catalogue.rows import Pictures, changed, check
from catalogue.table import Line, TableError

API = json.loads((ROOT / "workflows" / "api" / "paper_doll.json").read_text())


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "table" / "more").mkdir(parents=True)
    for name in ("red.png", "more/blue.png", "mask.png"):
        Image.new("RGB", (8, 8), name.split("/")[-1].split(".")[0].replace("mask", "white")).save(tmp_path / "table" / name)
    (tmp_path / "secret.png").write_bytes((tmp_path / "table" / "red.png").read_bytes())
    (tmp_path / "table" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "table" / "text.png").write_text("no picture")
    return tmp_path / "table"


def rows(folder, *cells, origins=()):
    lines = [Line(f"line {i}", row) for i, row in enumerate(cells, 2)]
    return check(lines, API, Pictures(folder, [URL(each) for each in origins]))


def faults(folder, *cells, **options):
    with pytest.raises(TableError) as error:
        rows(folder, *cells, **options)
    return str(error.value)


def test_a_row_changes_what_its_columns_name_and_nothing_else(folder):
    cells = {
        "face": "red.png", "shoes": None, "upper body clothes": "more/blue.png", "upper body clothes mask": "mask.png",
        "pose": "red.png", "prompt": "in the rain", "negative": "blurry", "seed": "18446744073709551615", "width": "64",
        "height": 96.0, "16.steps": "3", "16.cfg": "2.5", "18.filename_prefix": "007", "name": "my first", "#sku": "A-1",
    }
    (row,) = rows(folder, cells)
    workflow, slots = changed(API, row)
    placed = {slot.picture.source.name for slot in slots}
    assert row.name == "my first" and placed == {"red.png", "blue.png", "mask.png"} and len(slots) == 4
    for slot in slots:
        slot.inputs[slot.name] = slot.picture.name
    before = json.loads(json.dumps(API))
    before["2"]["inputs"]["image"] = before["10"]["inputs"]["image"] = "red.png"
    before["4"]["inputs"] |= {"image": "blue.png", "mask": ["mask of node 4", 0]}
    before["mask of node 4"] = {"class_type": "LoadImageMask", "inputs": {"image": "mask.png", "channel": "red"}}
    del before["23"], before["5"]["inputs"]["parts.part4"]
    before["13"]["inputs"]["text"], before["14"]["inputs"]["text"] = "in the rain", "blurry"
    before["6"]["inputs"]["value"], before["7"]["inputs"]["value"] = 64, 96
    before["16"]["inputs"] |= {"seed": 2**64 - 1, "steps": 3, "cfg": 2.5}
    before["18"]["inputs"]["filename_prefix"] = "007"
    assert workflow == before


def test_an_empty_cell_leaves_a_part_out_and_all_else_as_it_is(folder):
    nothing = {"face": None, "prompt": None, "seed": None, "16.steps": None}
    left, empty = rows(folder, nothing, {"face": "", "prompt": "", "seed": 1})
    workflow, slots = changed(API, left)
    assert not slots and "2" not in workflow and workflow["13"] == API["13"] and workflow["16"] == API["16"]
    assert changed(API, empty)[0]["13"]["inputs"]["text"] == ""


def test_a_part_that_other_nodes_need_cannot_be_left_out(folder):
    workflow = {**API, "99": {"class_type": "TheirNode", "inputs": {"part": ["2", 0]}}}
    with pytest.raises(TableError, match="line 2: The part 'face' cannot be left out: node 99, TheirNode, needs it."):
        check([Line("line 2", {"face": None})], workflow, Pictures(folder, []))


def test_all_faults_are_found_at_once_with_their_lines(folder):
    said = faults(
        folder, {"face": "gone.png", "seed": "-1", "width": "100"}, {"face": "red.png"}, {"face": "text.png", "seed": "x"},
        {"face": "red.png", "seed": 1.5, "height": True}, {"name": "a"}, {"name": "A"}, {"name": "a_2"}, {"16.cfg": "warm"},
        {"face": None, "face mask": "mask.png"}, {"prompt": ["x"]},
    )
    lines = [line.split(":")[0] for line in said.splitlines()]
    assert lines == ["line 2"] * 3 + ["line 4"] * 2 + ["line 5"] * 2 + ["line 7", "line 9", "line 10", "line 11", "line 8"]
    for words in ("no picture 'gone.png'", "'text.png' is no picture", "a multiple of 8", "that of line 6 too", "takes a number",
                  "a mask and no picture", "holds list"):
        assert words in said


def test_columns_that_the_workflow_does_not_know(folder):
    said = faults(folder, {"face": "gone.png", "gloves": "x.png", "99.steps": 1, "gloves mask": "x", "Face": "x"})
    assert len(said.splitlines()) == 4 and "'gloves' is no column" in said and "face, hair or headwear" in said
    assert "Node 16, KSampler, has no value 'stepz' of its own" in faults(folder, {"16.stepz": 1})
    assert "Node 16, KSampler, has no value 'model'" in faults(folder, {"16.model": 1})


def test_long_lists_of_faults_are_shortened(folder):
    said = faults(folder, *[{"face": f"{i}.png"} for i in range(80)])
    assert len(said.splitlines()) == 51 and said.endswith("... and 30 more")


@pytest.mark.parametrize("text", ["../secret.png", "link.png", "more/../../secret.png", "/etc/hostname", "{secret}"])
def test_pictures_are_taken_from_one_folder_only(folder, text):
    said = faults(folder, {"face": text.format(secret=folder.parent / "secret.png")})
    assert "lies outside of" in said
    (row,) = rows(folder, {"face": str(folder / "red.png")})
    assert row.changes.parts["face"].source == folder / "red.png"


@pytest.mark.parametrize("url", [
    "http://169.254.169.254/latest", "https://shop.example.evil.com/a.png", "https://shop.example@evil.com/a.png",
    "https://me:pass@shop.example/a.png", "http://shop.example/a.png", "https://shop.example:444/a.png", "file:///etc/hostname",
    "https:///a.png",
])
def test_urls_are_taken_from_named_origins_only(folder, url):
    assert "is of no origin" in faults(folder, {"face": url}, origins=["https://shop.example"])
    assert "is of no origin" in faults(folder, {"face": "https://shop.example/a.png"})
    (row,) = rows(folder, {"face": "https://shop.example/parts/a.png?size=1"}, origins=["https://shop.example"])
    assert row.changes.parts["face"].name == "a.png"


@pytest.mark.parametrize("name", [
    "", ".", "..", "a/b", "a\\b", "/a", ".hidden", "-o", "=1+1", "a\nb", "a ", "a.", "x" * 101, "catalogue", "Catalogue_sheet",
    "a:b",
])
def test_names_that_cannot_be_files(folder, name):
    assert "cannot name a file" in faults(folder, {"name": name})


def test_the_key_is_of_what_is_drawn(folder):
    """Not of where it stands in the table or of where its pictures lie."""
    def key(**cells):
        return rows(folder, {"name": "a", **cells})[0].key

    (folder / "more" / "red.png").write_bytes((folder / "red.png").read_bytes())
    assert key(face="red.png") == key(face="more/red.png") == rows(folder, {}, {"name": "a", "face": "red.png"})[1].key
    assert len({key(), key(face="red.png"), key(face="mask.png"), key(seed=5), key(prompt="x"), key(face=None)}) == 6
