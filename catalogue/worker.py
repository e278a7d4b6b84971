"""A worker: a Ray actor with a ComfyUI of its own, one that it starts or one that runs somewhere."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import NamedTuple

import aiohttp
import ray
from comfy_answers import ComfyError, ServerGone, chunks, pictures
from comfy_client import Comfy

from .server import Server, Start

MOST_FILES, MOST_BYTES = 100, 256 * 2**20  # of one row
LARGEST_PICTURE = 64 * 2**20  # from a URL
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".apng", ".mp4", ".webm", ".mkv", ".mov")


class Slot(NamedTuple):
    """An input of a node that takes a picture's name."""

    node: str
    input: str
    picture: str


@dataclass(frozen=True)
class Job:
    """A row as a worker gets it.

    pictures: the name of the file, and its bytes, or its URL, or None where this worker has it
    seconds: after how many it counts as failed
    """

    workflow: dict
    slots: tuple[Slot, ...]
    pictures: dict[str, tuple[str, bytes | str | None]]
    seconds: float


@dataclass(frozen=True)
class Drawn:
    """What became of a row.

    files: each with the ending of its name, such as .png
    server_seconds: what ComfyUI itself took
    encodings: parts that were encoded for it
    gone: the server is, and there may be another one that can do it
    """

    files: tuple[tuple[str, bytes], ...] = ()
    server_seconds: float | None = None
    encodings: int = 0
    error: str = ""
    gone: bool = False


@dataclass
class _Connection:
    comfy: Comfy
    server: Server | None
    uploaded: dict[str, str] = field(default_factory=dict)


@ray.remote
class Worker:
    """server: the address of a ComfyUI, or how to start one. headers: sent with every request to it. patience: for how many
    seconds it may not answer
    """

    def __init__(self, server: str | Start, headers: dict[str, str], patience: float):
        self.server, self.headers, self.patience = server, headers, patience
        self.connection: _Connection | None = None

    async def connect(self) -> str:
        """Starts the server where that is ours to do, and waits for it. Returns where the worker is.

        raises: NoStart; ServerGone where it does not answer for as long as our patience lasts; ComfyError where it is none
        """
        await self.stop()
        server = None
        if isinstance(self.server, Start):
            server = Server(self.server, cpu=not ray.get_gpu_ids())
            await server.answers()
        comfy = Comfy(server.address if server else self.server, self.headers, patience=1 if server else min(30, self.patience))
        await comfy.__aenter__()
        self.connection, deadline = _Connection(comfy, server), time.monotonic() + self.patience
        while True:
            try:
                await comfy.look()
                return f"{socket.gethostname()}:{server.port}" if server else comfy.address
            except ServerGone:
                if time.monotonic() > deadline:
                    await self.stop()
                    raise
                await asyncio.sleep(1)

    async def draw(self, job: Job) -> Drawn:
        """Never raises, but where it is cancelled: then the server is told too."""
        connection = self.connection
        if connection is None:
            return Drawn(error="The worker has no server.", gone=True)
        try:
            run = asyncio.ensure_future(self._draw(connection, job))
            watch = asyncio.ensure_future(_ends(connection.server))
            try:
                await asyncio.wait((run, watch), timeout=job.seconds, return_when=asyncio.FIRST_COMPLETED)
                if run.done():
                    return run.result()
                if watch.done():
                    return Drawn(error="The ComfyUI of this worker ended in the midst of it.", gone=True)
                return Drawn(error=f"It was not drawn within {job.seconds:g} s.")
            finally:
                for task in (run, watch):
                    task.cancel()
                await asyncio.gather(run, watch, return_exceptions=True)
        except ServerGone as error:
            return Drawn(error=str(error), gone=True)
        except ComfyError as error:
            # It may have been started anew, without what was uploaded.
            connection.uploaded.clear()
            return Drawn(error=str(error), gone=connection.server is not None and not connection.server.alive)
        except OSError as error:
            return Drawn(error=f"{type(error).__name__}: {error}")

    async def stop(self):
        if self.connection:
            connection, self.connection = self.connection, None
            await connection.comfy.__aexit__()
            if connection.server:
                await asyncio.to_thread(connection.server.stop)

    async def _draw(self, connection: _Connection, job: Job) -> Drawn:
        comfy = connection.comfy
        for picture, (name, data) in job.pictures.items():
            if picture not in connection.uploaded:
                if data is None:
                    raise ComfyError("The server has forgotten the pictures that it was given.")
                data = await _download(data) if isinstance(data, str) else data
                connection.uploaded[picture] = await comfy.upload(name, data)
        for slot in job.slots:
            job.workflow[slot.node]["inputs"][slot.input] = connection.uploaded[slot.picture]
        if connection.server:
            connection.server.bring(job.workflow)
        left_out = []
        run = await comfy.run(job.workflow, on_left_out=left_out.append)
        if left_out:
            raise ComfyError(f"ComfyUI left out: {left_out[0]}")
        places = sorted(pictures(run.outputs), key=lambda place: place["type"] != "output")
        if not 0 < len(places) <= MOST_FILES:
            raise ComfyError(f"The workflow gave {len(places)} pictures: 1 to {MOST_FILES} are taken.")
        files, left = [], MOST_BYTES
        for place in places:
            kind = PurePath(place["filename"]).suffix.lower()
            if kind not in KINDS:
                raise ComfyError(f"'{place['filename']}' is none of {', '.join(KINDS)}.")
            files.append((kind, await comfy.read(place, left)))
            left -= len(files[-1][1])
        return Drawn(tuple(files), run.seconds, encodings(job.workflow, run.cached))


def encodings(workflow: dict, cached: frozenset[str]) -> int:
    """How many parts were encoded in a run: those that the server did not have, where an Encode Appearance ran at all. It
    remembers every part that the server has."""
    def ran(kind: str) -> list[str]:
        return [id for id, node in workflow.items() if node["class_type"] == kind and id not in cached]

    return len(ran("Parts2WholeLoadPart")) if ran("Parts2WholeEncodeAppearance") else 0


async def _ends(server: Server | None):
    while server is None or server.alive:
        await asyncio.sleep(0.2)


async def _download(url: str) -> bytes:
    """raises: ComfyError for all but a picture"""
    timeout = aiohttp.ClientTimeout(total=120, sock_connect=30)
    try:
        async with (
            aiohttp.ClientSession(headers={"Accept-Encoding": "identity"}, auto_decompress=False, timeout=timeout) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200 or not answer.content_type.startswith(("image/", "application/octet-stream")):
                raise ComfyError(f"{url} answers {answer.status}, {answer.content_type}: no picture.")
            return b"".join([chunk async for chunk in chunks(answer, LARGEST_PICTURE)])
    except (aiohttp.ClientError, asyncio.TimeoutError) as error:
        raise ComfyError(f"{url} cannot be fetched: {error or type(error).__name__}.") from None
