"""A ComfyUI that a worker starts for itself, on the machine that it is on."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

KEPT = 128  # outputs of nodes, about: some forty parts, of which one takes 33 MB at 512x768
PATIENCE = 300  # seconds for a start: packs and models may lie on slow disks


class NoStart(RuntimeError):
    """ComfyUI does not start."""


@dataclass(frozen=True)
class Start:
    """How a ComfyUI is started. What is None is looked for on the machine where that is: COMFYUI_PATH and PYTHON there.

    comfyui: the folder with its main.py
    python: its interpreter
    base: its --base-directory, if it has one
    options: of its command line
    threads: for the CPU's work, None for its own choice
    """

    comfyui: str | None = None
    python: str | None = None
    base: str | None = None
    options: tuple[str, ...] = ()
    threads: int | None = None


class Server:
    """A started ComfyUI with folders of its own: several on one machine would overwrite each other's pictures."""

    def __init__(self, start: Start, cpu: bool):
        self.home = _comfyui(start)
        self.base = Path(start.base or self.home).resolve()
        self.folder = Path(tempfile.mkdtemp(prefix="catalogue-"))
        for name in ("input", "output", "temp", "user"):
            (self.folder / name).mkdir()
        # What was encoded and kept is for all.
        wardrobe = self.base / "output" / "wardrobe"
        if wardrobe.is_dir():
            (self.folder / "output" / "wardrobe").symlink_to(wardrobe, target_is_directory=True)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        base = ["--base-directory", str(self.base)] if start.base else []
        kind = ["--cpu"] if cpu else []
        folders = [f"--{name}-directory={self.folder / name}" for name in ("input", "output", "temp", "user")]
        # For the parts of rows before: by default ComfyUI keeps those of the last one only.
        own_cache = any(option.startswith(("--cache-", "--high-ram")) for option in start.options)
        cache = [] if own_cache else ["--cache-lru", str(KEPT)]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}  # Ray sets it to 1
        if start.threads:
            environment["OMP_NUM_THREADS"] = str(start.threads)
        with (self.folder / "server.log").open("wb") as log:
            self.process = subprocess.Popen(
                [_python(start, self.home), Path(__file__).with_name("server_process.py"), self.folder, self.home / "main.py",
                 *base, *kind, *cache, *start.options, *folders, "--listen", "127.0.0.1", "--port", str(self.port),
                 "--disable-auto-launch"],
                stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, env=environment,
            )

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    async def answers(self):
        """Waits for it.

        raises: NoStart with the end of its log
        """
        for _ in range(PATIENCE * 5):
            if not self.alive:
                break
            if await asyncio.to_thread(self._is_there):
                return
            await asyncio.sleep(0.2)
        log = (self.folder / "server.log").read_text(errors="replace") if self.folder.exists() else ""
        self.stop()
        raise NoStart(f"ComfyUI in {self.home} did not start:\n{log[-1500:]}")

    def _is_there(self) -> bool:
        """Ours, and not another one that took the port first."""
        try:
            with urllib.request.urlopen(f"{self.address}/system_stats", timeout=5) as answer:
                return f"--output-directory={self.folder / 'output'}" in json.load(answer)["system"]["argv"]
        except (OSError, ValueError, KeyError):
            return False

    def bring(self, workflow: dict):
        """Copies what the workflow names and the ComfyUI here has in its input folder into the server's own."""
        theirs, ours = self.base / "input", self.folder / "input"
        for node in workflow.values():
            for value in node["inputs"].values():
                if isinstance(value, str) and 0 < len(value) < 250 and value.isprintable() and not (ours / value).exists():
                    path = (theirs / value).resolve()
                    if path.is_relative_to(theirs.resolve()) and path.is_file():
                        (ours / value).parent.mkdir(parents=True, exist_ok=True)
                        shutil.copyfile(path, ours / value)

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def _comfyui(start: Start) -> Path:
    path = start.comfyui or os.environ.get("COMFYUI_PATH")
    if not path:
        pack = Path(__file__).resolve().parents[1]
        path = pack.parents[1] if pack.parent.name == "custom_nodes" else ""
    if not (Path(path) / "main.py").is_file() or not path:
        raise NoStart(f"'{path}' on {socket.gethostname()} holds no main.py: name ComfyUI's folder by --comfyui or COMFYUI_PATH.")
    return Path(path).resolve()


def _python(start: Start, home: Path) -> str:
    named = start.python or os.environ.get("PYTHON")
    own = [str(path) for name in (".venv", "venv") if (path := home / name / "bin" / "python").exists()]
    return named or next(iter(own), sys.executable)
