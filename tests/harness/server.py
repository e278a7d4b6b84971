"""Starts the real ComfyUI as a user would, headless and with this pack, and talks to it over HTTP and its websocket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

from harness.host import ROOT

sys.path.append(str(ROOT / "workflows" / "api"))

from comfy_answers import ServerGone
from comfy_client import Comfy

FOLDERS = ("models/parts2whole", "input", "output", "temp", "user", "custom_nodes")


class ComfyServer:
    """A server with folders of its own under `base`, which has this pack in its custom_nodes.

    options: further command line options of ComfyUI; without a GPU `--cpu` is added
    """

    def __init__(self, base: Path, *options: str):
        self.base = Path(base)
        for folder in FOLDERS:
            (self.base / folder).mkdir(parents=True, exist_ok=True)
        pack = self.base / "custom_nodes" / "comfyui-parts2whole"
        if not pack.exists():
            pack.symlink_to(ROOT)
        self.options = options
        self.log_path = self.base / "server.log"

    def __enter__(self) -> ComfyServer:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{s.getsockname()[1]}"
        cpu = [] if _has_gpu() else ["--cpu"]
        self.process = subprocess.Popen(
            [sys.executable, "main.py", "--port", self.address.split(":")[1], "--base-directory", str(self.base),
             "--disable-all-custom-nodes", "--whitelist-custom-nodes", "comfyui-parts2whole", *cpu, *self.options],
            cwd=os.environ["COMFYUI_PATH"], stdout=self.log_path.open("w"), stderr=subprocess.STDOUT,
        )
        deadline = time.monotonic() + 180
        while True:
            try:
                self.get("/system_stats")
                return self
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.process.kill()
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-3000:]}") from None
                time.sleep(0.2)

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def get(self, path: str, **query) -> dict:
        return json.loads(self._open(f"{path}?{urllib.parse.urlencode(query)}"))

    def shows_again(self) -> bool:
        """Whether the host says again what nodes in its cache have shown; 0.16.3 says so of those that are asked for only."""
        major, minor, _ = self.get("/system_stats")["system"]["comfyui_version"].split(".", 2)
        return (int(major), int(minor)) >= (0, 20)

    def view(self, file: dict) -> bytes:
        """A picture of a finished prompt, by its entry in the outputs."""
        return self._open("/view?" + urllib.parse.urlencode(file))

    def post(self, path: str, data: dict | None = None) -> dict:
        """raises: RuntimeError with the server's answer where it refuses, for example an invalid prompt"""
        try:
            return json.loads(self._open(path, json.dumps(data or {}).encode()) or "{}")
        except urllib.error.HTTPError as error:
            raise RuntimeError(error.read().decode()) from None

    def _open(self, path: str, data: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"http://{self.address}{path}", data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.read()

    def run(self, workflow: dict, on_message: Callable[[dict], None] = lambda message: None) -> dict:
        """Queues a workflow in API format and waits for its end.

        on_message: called with every message of the websocket that is about this prompt
        returns: the outputs of its output nodes, by node
        raises: RuntimeError with the node and the message, where a node failed or the run was interrupted
        """
        async def run() -> dict:
            async with Comfy(self.address, patience=5) as comfy:
                return (await comfy.run(workflow, on_message)).outputs

        try:
            return asyncio.run(run())
        except ServerGone as error:
            raise RuntimeError(f"{error}\n{self.log()[-3000:]}") from None


def _has_gpu() -> bool:
    return bool(shutil.which("nvidia-smi")) and subprocess.run(["nvidia-smi"], capture_output=True).returncode == 0
