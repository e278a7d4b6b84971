"""Five hundred rows by two ComfyUIs that the catalogue starts, while both are killed, a worker too, and it is ended by Ctrl-C."""

import json
import os
import signal
import time

import psutil
import pytest
from harness.catalogues import pictures_of, processes, quick_workflow, start, table_of, write_rows
from harness.host import ROOT

ROWS = 500


def until(true, seconds=900):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def memory(run):
    """In MB: of the run itself, and of the largest ComfyUI."""
    servers = [process.memory_info().rss for process in processes(run, "server_process.py")]
    return psutil.Process(run.pid).memory_info().rss / 2**20, max(servers, default=0) / 2**20


@pytest.mark.slow
def test_nothing_is_lost_and_nothing_doubled(tmp_path):
    (tmp_path / "base" / "custom_nodes").mkdir(parents=True)
    (tmp_path / "base" / "models").mkdir()
    (tmp_path / "base" / "custom_nodes" / "comfyui-parts2whole").symlink_to(ROOT)
    write_rows(tmp_path / "rows.csv", ROWS)
    workflow, out = quick_workflow(tmp_path / "quick.json", steps=1), tmp_path / "out"
    count = min(2, os.cpu_count())

    def begin():
        return start(
            tmp_path / "rows.csv", "--workers", str(count), "--base-directory", str(tmp_path / "base"),
            "--comfyui-option=--use-pytorch-cross-attention", workflow=workflow, out=out,
        )

    def kill(run, what):
        victim = max(processes(run, what), key=lambda process: process.memory_info().rss)
        victim.kill()

    run = begin()
    until(lambda: len(pictures_of(out)) >= 40)
    kill(run, "server_process.py")
    until(lambda: len(pictures_of(out)) >= 120)
    began = memory(run)
    kill(run, "server_process.py")
    until(lambda: len(pictures_of(out)) >= 200)
    kill(run, "ray::Worker")
    until(lambda: len(pictures_of(out)) >= 260)
    servers = processes(run, "server_process.py")
    os.killpg(run.pid, signal.SIGINT)
    said, _ = run.communicate(timeout=120)
    assert run.returncode == 1 and "Run it again for the rest" in said and "Traceback" not in said, said
    gone, alive = psutil.wait_procs(servers, timeout=30)
    assert servers and not alive, "no server outlives the run"
    between = pictures_of(out)
    assert 260 <= len(between) < ROWS and not [*out.glob(".*")]
    assert sum(not row["error"] for row in table_of(out)) == len(between)

    run = begin()
    until(lambda: len(pictures_of(out)) >= 480)
    ended = memory(run)
    said, _ = run.communicate(timeout=600)
    assert run.returncode == 0 and f"{ROWS} of {ROWS} rows are drawn, 0 failed" in said, said
    rows, drawn = table_of(out), pictures_of(out)
    assert drawn.keys() == {f"look {i}" for i in range(ROWS)} == {row["name"] for row in rows} and len({*drawn.values()}) == ROWS
    assert {name: drawn[name] for name in between} == between
    journal = [json.loads(line) for line in (out / "catalogue.jsonl").read_text().splitlines() if line]
    assert len(journal) == ROWS == len({entry["key"] for entry in journal})
    assert sum(int(row["tries"]) > 1 for row in rows) <= 3, "those in the midst of which something was killed"
    encodings = sum(int(row["encodings"]) for row in rows)
    # Eight parts, by two workers in two runs, and by those that came after what was killed.
    assert encodings <= 8 * (2 * count + 3)
    assert ended[0] < began[0] + 100 and ended[1] < 1.5 * began[1], (began, ended)
    times = sorted(float(row["seconds"]) - float(row["server_seconds"]) for row in rows)
    print(f"overhead of a row in s: {times[ROWS // 2]:.3f}, nine in ten below {times[ROWS * 9 // 10]:.3f}")
    print(f"encodings: {encodings}; MB of the command and of a server: {began}, then {ended}")
