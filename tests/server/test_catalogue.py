"""The catalogue with the real server, as two workers see it; the second by a gateway that breaks in the midst."""

import asyncio
import json
import subprocess
import sys
import time

import pyarrow.parquet
import pytest
from harness.catalogues import API, FACES, PICTURES, SHIRTS, Gateway, pictures_of, quick_workflow, start, table_of, write_rows
from harness.host import ROOT
from PIL import Image

from catalogue.worker import Comfy, encodings

ROWS = 14


def until(true, seconds=120):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture(scope="module")
def made(server, tmp_path_factory):
    """A folder with rows.csv and out/, and a function that runs it again."""
    folder = tmp_path_factory.mktemp("catalogue")
    workflow = quick_workflow(folder / "quick.json", steps=2)
    empty = dict.fromkeys(("face mask", "negative", "width", "height"), "")
    write_rows(folder / "rows.csv", ROWS, shoes="doll_shoes.png", **empty, **{"16.sampler_name": "ddim"})
    with (folder / "rows.csv").open("a") as file:
        file.write(f"other,{FACES[0]},{SHIRTS[0]},0,,{FACES[0]},blurry,64,96,euler\n")
        file.write(f"wrong,{FACES[0]},{SHIRTS[0]},5,,,,,,none\n")

    def run(*servers):
        options = [option for each in servers for option in ("--server", each)]
        return start(folder / "rows.csv", *options, "--patience", "3", workflow=workflow, out=folder / "out")

    with Gateway(server.address) as gateway:
        first = run(server.address, gateway.address)
        until(lambda: first.poll() is not None or len([*(folder / "out").glob("*.png")]) >= 4)
        gateway.breaks_next = True
        until(lambda: first.poll() is not None or gateway.broken)
        time.sleep(1)
        gateway.open()
        said, _ = first.communicate(timeout=300)
    assert first.returncode == 1, said
    return folder, run, said


def test_every_row_is_drawn_once_though_a_server_was_gone(made):
    folder, _, said = made
    rows = table_of(folder / "out")
    assert [row["name"] for row in rows] == [*(f"look {i}" for i in range(ROWS)), "other", "wrong"]
    drawn = pictures_of(folder / "out")
    assert [*drawn.keys() ^ {row["name"] for row in rows}] == ["wrong"] and len({*drawn.values()}) == ROWS + 1
    assert all(row["file"] == f"{row['name']}.png" and not row["error"] for row in rows[:-1])
    assert max(int(row["tries"]) for row in rows[:-1]) == 2, "the row in the midst of which it was gone"
    assert len({row["worker"] for row in rows[:-1]}) == 2
    assert f"{ROWS + 1} of {ROWS + 2} rows are drawn, 1 failed" in said and "16/16" in said
    names = {path.name for path in (folder / "out").iterdir()} - {f"{name}.png" for name in drawn}
    assert names == {"catalogue.csv", "catalogue.parquet", "catalogue.jsonl", "catalogue.lock", "catalogue_sheet.jpg"}


def test_the_rows_error_stands_in_the_table(made):
    wrong = table_of(made[0] / "out")[-1]
    assert "sampler_name: 'none' not in" in wrong["error"] and wrong["tries"] == "3" and not wrong["file"]
    table = pyarrow.parquet.read_table(made[0] / "out" / "catalogue.parquet").to_pylist()
    assert [bool(row["error"]) for row in table] == [False] * (ROWS + 1) + [True] and min(row["seconds"] for row in table[:-1]) > 0


def test_encodings_are_counted_as_the_server_does_them(server):
    """By what it had of the run before, against what its encoder reports: two steps for each part."""
    workflow, steps = json.loads(API.read_text()), []
    workflow["16"]["inputs"]["steps"] = 1

    def note(message):
        if message["type"] == "progress" and message["data"]["node"] == "8":
            steps.append(message["data"]["max"])

    async def count(**pictures):
        workflow["4"]["inputs"]["image"] = pictures.get("shirt", SHIRTS[0])
        workflow["2"]["inputs"]["image"] = pictures.get("face", FACES[0])
        workflow["16"]["inputs"]["seed"] += 1
        steps.clear()
        async with Comfy(server.address) as comfy:
            run = await comfy.run(workflow, note)
        return encodings(workflow, run.cached), max(steps, default=0) / 2

    asyncio.run(count())  # what other tests left on the server goes
    changes = {}, {"shirt": SHIRTS[1]}, {"shirt": SHIRTS[2], "face": FACES[1]}, {"shirt": SHIRTS[2], "face": FACES[1]}
    assert [asyncio.run(count(**change)) for change in changes] == [(0, 0), (1, 1), (2, 2), (0, 0)]


def test_the_sheet_shows_the_first_hundred(made):
    sheet = Image.open(made[0] / "out" / "catalogue_sheet.jpg")
    assert sheet.width > 10 * 128 and sheet.height > 2 * 192


def test_the_same_bytes_as_by_compose(made, server, tmp_path):
    folder = made[0]

    def composed(face, shirt, *options):
        parts = (f"--part={label}={PICTURES / name}" for label, name in (("face", face), ("upper body clothes", shirt)))
        subprocess.run(
            [sys.executable, ROOT / "workflows" / "api" / "compose.py", folder / "quick.json", "--server", server.address, *parts,
             *options, "--output", tmp_path / "composed.png"], check=True, capture_output=True,
        )
        return (tmp_path / "composed.png").read_bytes()

    drawn = pictures_of(folder / "out")
    shoes = f"--part=shoes={PICTURES / 'doll_shoes.png'}"
    assert composed(FACES[1], SHIRTS[0], shoes, "--seed=1", "--set=16.sampler_name=ddim") == drawn["look 1"]
    other = composed(
        FACES[0], SHIRTS[0], "--without=shoes", f"--mask=face={PICTURES / FACES[0]}", "--negative=blurry", "--seed=0", "--width=64",
        "--height=96", "--set=16.sampler_name=euler",
    )
    assert other == drawn["other"] and Image.open(folder / "out" / "other.png").size == (64, 96)


def test_run_again_it_does_what_is_missing(made, server):
    """What was lost or damaged, and a row that is another one now. What someone else put there is not touched."""
    folder, run, _ = made
    out = folder / "out"
    before = pictures_of(out)
    (out / "look 3.png").unlink()
    (out / "look 4.png").write_bytes(before["look 4"][:-1])
    (out / ".catalogue-0123").write_bytes(b"half")
    rows = (folder / "rows.csv").read_text().replace(",none\n", ",euler\n").replace("look 5,", "look five,")
    (folder / "rows.csv").write_text(rows)
    (out / "look five.jpg").write_bytes(b"mine")
    again = run(server.address)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 2 and "no run of the catalogue made" in said and "look five.jpg" in said
    (out / "look five.jpg").unlink()
    times = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    again = run(server.address)
    said, _ = again.communicate(timeout=300)
    assert again.returncode == 0 and "16 of 16 rows are drawn" in said, said
    after = pictures_of(out)
    assert {name: after[name] for name in before} == before and after.keys() - before.keys() == {"wrong", "look five"}
    changed = {path.stem for path in out.glob("*.png") if path.stat().st_mtime_ns != times.get(path)}
    assert changed == {"look 3", "look 4", "look five", "wrong"} and not [*out.glob(".*")]


def test_a_run_that_is_cancelled_is_taken_from_the_server(server):
    """As by Ctrl-C: what runs and what waits, and no other."""
    workflow = json.loads(API.read_text())
    workflow["16"]["inputs"]["steps"] = 1000

    async def go():
        async with Comfy(server.address) as comfy:
            first = asyncio.create_task(comfy.run(workflow, lambda message: message["type"] == "progress" and begun.set()))
            await asyncio.wait_for(begun.wait(), 60)
            others = asyncio.create_task(comfy.run(json.loads(API.read_text())))
            second = asyncio.create_task(comfy.run(workflow))
            while len((await asyncio.to_thread(server.get, "/queue"))["queue_pending"]) < 2:
                await asyncio.sleep(0.05)
            for task in (second, first):
                task.cancel()
            ended = await asyncio.gather(first, second, return_exceptions=True)
            assert all(isinstance(error, asyncio.CancelledError) for error in ended)
            assert (await asyncio.wait_for(others, 60)).outputs

    begun = asyncio.Event()
    asyncio.run(go())
    until(lambda: not any(server.get("/queue").values()), seconds=30)  # it tells of an end before it has cleared up
