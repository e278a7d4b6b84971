"""What it takes to have the pack and its networks: at the server's start, and in Load Parts2Whole."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from full_size import make_checkpoint
from harness.server import ROOT
from parts2whole.encoders.checkpoint.load import load_checkpoint
from timing import GPU, HEADLINE, Time, compare, seconds_of, show, summarise


def bench_loading(plain, options) -> dict:
    """Load Parts2Whole of a checkpoint of the release's size, against reading the same files. Needs 6 GB of disk for a while."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "checkpoint")
        make_checkpoint(folder)
        files = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pth")]

        def read():
            for path in files:
                path.read_bytes()

        takes = {
            "reading the files": partial(seconds_of, read),
            "Load Parts2Whole": partial(seconds_of, partial(load_checkpoint, str(folder))),
        }
        rows = compare(takes, options.rounds, "reading the files")
        show(f"Loading {sum(path.stat().st_size for path in files) / 1e9:.1f} GB, the files in the system's memory already", rows)
    return rows


IMPORT = """
import asyncio, sys, time
sys.path.insert(0, {host!r})
import comfy.cli_args
comfy.cli_args.args.cpu = {cpu}
import folder_paths, nodes, tempfile
folder_paths.set_input_directory(tempfile.mkdtemp())
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
begin = time.perf_counter(), time.process_time()
asyncio.run(nodes.load_custom_node({pack!r}, module_parent="custom_nodes"))
print("seconds", time.perf_counter() - begin[0], time.process_time() - begin[1])
"""


def bench_import(plain, options) -> dict:
    """How long the pack keeps the server's start, after the host's own nodes."""
    script = IMPORT.format(host=os.environ["COMFYUI_PATH"], cpu=not GPU, pack=str(ROOT))
    times = []
    for _ in range(3):
        printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        times.append(Time(*map(float, printed.split()[-2:])))
    row = summarise({"import": times}, "import")["import"]
    print(f"\nImport of the pack when the server starts: {row[HEADLINE]['seconds']:.2f} s")
    return row
