"""Runs the catalogue as a user does, and looks at what it made."""

from __future__ import annotations

import asyncio
import csv
import itertools
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import psutil
from harness.host import ROOT

PICTURES = ROOT / "workflows" / "input"
API = ROOT / "workflows" / "api" / "paper_doll.json"
FACES = ("doll_face.png", "doll_face_2.png")
SHIRTS = tuple(f"doll_top{each}.png" for each in ("", "_2", "_3"))


def quick_workflow(path: Path, steps: int) -> Path:
    workflow = json.loads(API.read_text())
    workflow["16"]["inputs"]["steps"] = steps
    path.write_text(json.dumps(workflow))
    return path


def write_rows(path: Path, count: int, **cells):
    """Faces with shirts, each pair often, in an order that helps nobody."""
    pairs = itertools.cycle(itertools.product(SHIRTS, FACES))
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "face", "upper body clothes", "seed", *cells])
        for i, (shirt, face) in zip(range(count), pairs):
            rows.writerow([f"look {i}", face, shirt, i, *cells.values()])


def start(table: Path, *options: str, workflow: Path, out: Path) -> subprocess.Popen:
    """In a group of its own, so that Ctrl-C reaches what it would reach in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "catalogue", table, "--workflow", workflow, "--out", out, "--pictures", PICTURES, "--ray", "local",
         *options],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        start_new_session=True,
    )


def processes(run: subprocess.Popen, what: str) -> list[psutil.Process]:
    """Those that this run has begun, by a word of their command lines."""
    found = []
    for process in psutil.Process(run.pid).children(recursive=True):
        try:
            if any(what in word for word in process.cmdline()):
                found.append(process)
        except psutil.Error:  # it ends just now
            continue
    return found


def table_of(out: Path) -> list[dict]:
    with (out / "catalogue.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def pictures_of(out: Path) -> dict[str, bytes]:
    return {path.stem: path.read_bytes() for path in out.glob("*.png")}


class Gateway:
    """Stands before a server, and can break: to whoever comes through it, the server has died.

    breaks_next: set it, and the gateway breaks as the next prompt goes through
    """

    def __init__(self, address: str):
        host, port = address.split(":")
        self.behind = host, int(port)
        self.loop = asyncio.new_event_loop()
        self.writers: set[asyncio.StreamWriter] = set()
        self.breaks_next, self.broken = False, False
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)

    def __enter__(self) -> Gateway:
        self.thread.start()
        self.port = 0
        self.open()
        return self

    def __exit__(self, *_):
        self.cut()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    def open(self):
        self.listener = self._do(asyncio.start_server(self._connect, "127.0.0.1", self.port))
        self.port = self.listener.sockets[0].getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    def cut(self):
        async def end():
            self._end()

        self._do(end())

    def _end(self):
        self.listener.close()
        for writer in self.writers:
            writer.transport.abort()

    def _do(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(10)

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        behind_reader, behind = await asyncio.open_connection(*self.behind)
        self.writers |= {writer, behind}
        await asyncio.gather(self._pass(reader, behind), self._pass(behind_reader, writer))
        self.writers -= {writer, behind}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        with suppress(OSError):
            while data := await reader.read(2**16):
                writer.write(data)
                await writer.drain()
                if self.breaks_next and data.startswith(b"POST /prompt"):
                    self.breaks_next, self.broken = False, True
                    self._end()
        writer.close()
