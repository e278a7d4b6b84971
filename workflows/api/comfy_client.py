"""A client of a running ComfyUI: uploads pictures, queues a workflow, follows it, and fetches what was drawn.

The server is not trusted: it is followed nowhere else, and what it sends is limited in size and number: see comfy_answers.py.
What became of a run is read from its history, so that a websocket that breaks off costs only the progress.
Needs aiohttp, which ComfyUI brings.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import uuid
from collections.abc import Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path, PurePath

import aiohttp
from comfy_answers import ComfyError, Run, ServerGone, as_comfyui, chunks, faults, printable, read_json, run_of
from yarl import URL

# In bytes, and in messages of one run. ComfyUI's own previews are far below.
LARGEST_MESSAGE, LARGEST_FILE = 16 * 2**20, 2**30
MOST_MESSAGES = 1_000_000
ENDS = ("execution_success", "execution_error", "execution_interrupted")


class Comfy:
    """A ComfyUI: `async with Comfy("https://host/prefix", headers) as comfy`.

    headers: sent with every request, such as Authorization
    patience: for how many seconds a server may not answer while a run of ours is in its hands
    raises: ValueError where the address is not one of HTTP
    """

    def __init__(self, address: str, headers: dict[str, str] | None = None, patience: float = 30):
        self.url = URL(address if "://" in address else f"http://{address}")
        if self.url.scheme not in ("http", "https") or not self.url.host or self.url.query_string or self.url.fragment:
            raise ValueError(f"'{address}' is not the address of a server: give one like http://127.0.0.1:8188 or https://host/path.")
        self.address = str(self.url.with_user(None)).rstrip("/")
        self.headers, self.patience = headers or {}, patience

    async def __aenter__(self) -> Comfy:
        trace = aiohttp.TraceConfig()  # the only way to see a websocket's redirects
        trace.on_request_redirect.append(self._refuse_redirect)
        self.session = aiohttp.ClientSession(  # that unpacks nothing, so that a small answer stays small
            headers={"Accept-Encoding": "identity", **self.headers}, auto_decompress=False, trace_configs=[trace],
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=120),
        )
        return self

    async def __aexit__(self, *_):
        await self.session.close()

    async def look(self) -> dict:
        """What the server says of itself.

        raises: ComfyError where it is no ComfyUI
        """
        async with self._request("GET", "system_stats") as answer:
            stats = await read_json(answer)
        with as_comfyui("system_stats"):
            return dict(stats["system"])

    async def upload(self, name: str, data: bytes) -> str:
        """Copies a picture into the server's input folder. Returns its name there.

        It is named after what is in it too. So a picture has the same name on every server, which files that hold their
        workflow need to be the same, and another one of the same name is left alone.
        """
        form, path = aiohttp.FormData(), PurePath(name)
        form.add_field("image", data, filename=f"{path.stem[:80]}-{hashlib.sha256(data).hexdigest()[:12]}{path.suffix}")
        async with self._request("POST", "upload/image", data=form) as answer:
            data = await read_json(answer)
        with as_comfyui("upload/image"):
            return "/".join(filter(None, (data["subfolder"], data["name"])))

    async def run(
        self, workflow: dict, on_message: Callable[[dict], None] = lambda message: None,
        on_left_out: Callable[[str], None] = lambda text: None,
    ) -> Run:
        """Queues a workflow in API format and waits for its end. Who cancels it takes it from the server's queue.

        on_message: called with every message of the websocket about this run: {"type": ..., "data": {...}}
        on_left_out: called with what the server finds wrong with output nodes that it leaves out
        raises: ComfyError with the nodes and the faults where the workflow is refused, fails or is interrupted
        """
        client = uuid.uuid4().hex
        async with self._websocket(client) as socket:
            async with self._request("POST", "prompt", accept=(200, 400), json={"prompt": workflow, "client_id": client}) as answer:
                queued, refused = await read_json(answer), answer.status != 200
            with as_comfyui("prompt"):
                wrong = faults(workflow, queued)
                if refused:
                    raise ComfyError(wrong or f"{self.address} refuses the workflow without a word.")
                id = str(uuid.UUID(queued["prompt_id"]))
            if wrong:
                on_left_out(printable(wrong))
            try:
                if socket:
                    await _listen(socket, id, on_message)
                return await self._outcome(id)
            except asyncio.CancelledError:
                await self._give_up(id)
                raise

    async def fetch(self, place: dict[str, str], path: Path, limit: int = LARGEST_FILE) -> int:
        """Writes a file of a finished run to `path`, whole or not at all. Returns its size in bytes.

        place: one of `pictures`
        limit: in bytes
        """
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
        async with self._view(place) as answer:
            try:
                with part.open("xb") as file:
                    async for chunk in chunks(answer, limit):
                        file.write(chunk)
                    size = file.tell()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return size

    async def read(self, place: dict[str, str], limit: int = LARGEST_FILE) -> bytes:
        """A file of a finished run, as `fetch` takes it."""
        async with self._view(place) as answer:
            return b"".join([chunk async for chunk in chunks(answer, limit)])

    @asynccontextmanager
    async def _view(self, place: dict[str, str]):
        async with self._request("GET", "view", params=place) as answer:
            if not answer.content_type.startswith(("image/", "video/", "audio/", "application/octet-stream")):
                raise ComfyError(f"{self.address} sends {answer.content_type} for the picture {place['filename']}.")
            yield answer

    async def _give_up(self, id: str):
        """Takes our run, and no other, from the server, where it lets us."""
        for path, what in (("queue", {"delete": [id]}), ("interrupt", {"prompt_id": id})):
            with suppress(ComfyError, asyncio.TimeoutError):
                await asyncio.wait_for(self._post(path, what), 2)

    async def _post(self, path: str, what: dict):
        async with self._request("POST", path, json=what):
            pass

    async def _outcome(self, id: str) -> Run:
        pause = 0.02
        while not (entry := (await self._get(f"history/{id}")).get(id)):
            queue = await self._get("queue")
            with as_comfyui("queue"):
                waits = any(item[1] == id for items in (queue["queue_running"], queue["queue_pending"]) for item in items)
            if not waits and not (await self._get(f"history/{id}")).get(id):
                raise ComfyError(f"{self.address} knows nothing of this run any more: it was started anew, or its history cleared.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2)
        return run_of(entry)

    async def _get(self, path: str) -> dict:
        """Asks again while the server does not answer, until our patience ends."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                async with self._request("GET", path) as answer:
                    return await read_json(answer)
            except ServerGone:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(min(1, self.patience / 10))

    @asynccontextmanager
    async def _request(self, method: str, path: str, accept: tuple[int, ...] = (200,), **options):
        try:
            async with self.session.request(method, self.url / path, **options) as answer:
                if answer.status not in accept:
                    kind = ServerGone if answer.status in (502, 503, 504) else ComfyError
                    raise kind(f"{self.address} answers {answer.status} {answer.reason or ''} to /{path}.")
                yield answer
        except aiohttp.ClientConnectorError as error:
            raise ServerGone(f"No ComfyUI answers at {self.address}: start it, or give its address. ({error})") from None
        except (aiohttp.ClientError, asyncio.TimeoutError) as error:
            raise ServerGone(f"{self.address} broke off /{path}: {error or type(error).__name__}.") from None

    @asynccontextmanager
    async def _websocket(self, client: str):
        """The websocket, or None where something between us and the server does not let it through."""
        url = (self.url / "ws").with_query(clientId=client)
        try:
            socket = await self.session.ws_connect(url, max_msg_size=LARGEST_MESSAGE, heartbeat=60)
        except (aiohttp.ClientError, asyncio.TimeoutError):
            socket = None
        try:
            yield socket
        finally:
            if socket:
                with suppress(asyncio.TimeoutError):  # close() alone waits for as long as the server talks
                    await asyncio.wait_for(socket.close(), 1)

    async def _refuse_redirect(self, session, context, redirect):
        to = redirect.response.headers.get("Location", "")
        raise ComfyError(f"{self.address} redirects to {to}. That is not followed: give that address if you trust it.")


async def _listen(socket: aiohttp.ClientWebSocketResponse, id: str, on_message: Callable[[dict], None]):
    """Until the run ends, or the websocket does."""
    count = 0
    async for packet in socket:
        count += 1
        if packet.type == aiohttp.WSMsgType.ERROR or count > MOST_MESSAGES:
            return
        if packet.type != aiohttp.WSMsgType.TEXT:
            continue  # a preview
        with as_comfyui("ws"):
            message = {"type": "", "data": None, **json.loads(packet.data)}
        kind, data = message["type"], message["data"]
        if isinstance(data, dict) and data.get("prompt_id") == id:
            on_message(message)
            if kind in ENDS or kind == "executing" and data.get("node") is None:
                return
