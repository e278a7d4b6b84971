"""A client of a running ComfyUI: uploads pictures, queues a workflow, follows it, and fetches what was drawn.

The server is not trusted: it is followed nowhere else, what it sends is limited in size and number, and its words are made
printable. What became of a run is read from its history, so that a websocket that breaks off costs only the progress.
Needs aiohttp, which ComfyUI brings.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import aiohttp
from yarl import URL

# In bytes, and in messages of one run. ComfyUI's own previews and answers are far below.
LARGEST_MESSAGE, LARGEST_ANSWER, LARGEST_FILE = 16 * 2**20, 64 * 2**20, 2**30
MOST_MESSAGES = 1_000_000
ENDS = ("execution_success", "execution_error", "execution_interrupted")


class ComfyError(RuntimeError):
    """The server refuses something, fails at it, or is no ComfyUI."""

    def __init__(self, text: str):
        super().__init__(printable(text))


class ServerGone(ComfyError):
    """No server answers."""


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

    async def upload(self, path: Path) -> str:
        """Copies a picture into the server's input folder. Returns its name there: another one of the same name is left alone."""
        form = aiohttp.FormData()
        form.add_field("image", path.read_bytes(), filename=path.name)
        async with self._request("POST", "upload/image", data=form) as answer:
            data = await _json(answer)
        with _as_comfyui("upload/image"):
            return "/".join(filter(None, (data["subfolder"], data["name"])))

    async def run(
        self, workflow: dict, on_message: Callable[[dict], None] = lambda message: None,
        on_left_out: Callable[[str], None] = lambda text: None,
    ) -> dict[str, dict]:
        """Queues a workflow in API format and waits for its end. Returns the outputs of its output nodes, by node.

        on_message: called with every message of the websocket about this run: {"type": ..., "data": {...}}
        on_left_out: called with what the server finds wrong with output nodes that it leaves out
        raises: ComfyError with the nodes and the faults where the workflow is refused, fails or is interrupted
        """
        client = uuid.uuid4().hex
        async with self._websocket(client) as socket:
            async with self._request("POST", "prompt", accept=(200, 400), json={"prompt": workflow, "client_id": client}) as answer:
                queued, refused = await _json(answer), answer.status != 200
            with _as_comfyui("prompt"):
                faults = _faults(workflow, queued)
                if refused:
                    raise ComfyError(faults or f"{self.address} refuses the workflow without a word.")
                id = str(uuid.UUID(queued["prompt_id"]))
            if faults:
                on_left_out(printable(faults))
            if socket:
                await _listen(socket, id, on_message)
        return await self._outcome(id)

    async def fetch(self, place: dict[str, str], path: Path, limit: int = LARGEST_FILE) -> int:
        """Writes a file of a finished run to `path`, whole or not at all. Returns its size in bytes.

        place: one of `pictures`
        limit: in bytes
        """
        part = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.part")
        async with self._request("GET", "view", params=place) as answer:
            if not answer.content_type.startswith(("image/", "video/", "audio/", "application/octet-stream")):
                raise ComfyError(f"{self.address} sends {answer.content_type} for the picture {place['filename']}.")
            try:
                with part.open("xb") as file:
                    async for chunk in _chunks(answer, limit):
                        file.write(chunk)
                    size = file.tell()
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return size

    async def _outcome(self, id: str) -> dict[str, dict]:
        pause = 0.02
        while not (entry := (await self._get(f"history/{id}")).get(id)):
            queue = await self._get("queue")
            with _as_comfyui("queue"):
                waits = any(item[1] == id for items in (queue["queue_running"], queue["queue_pending"]) for item in items)
            if not waits and not (await self._get(f"history/{id}")).get(id):
                raise ComfyError(f"{self.address} knows nothing of this run any more: it was started anew, or its history cleared.")
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2)
        with _as_comfyui(f"history/{id}"):
            status = entry["status"]
            for kind, message in status["messages"]:
                if kind == "execution_error":
                    raise ComfyError(f"{message['node_type']}: {message['exception_message']}")
                if kind == "execution_interrupted":
                    raise ComfyError(f"The run was interrupted at {message.get('node_type')}.")
            if status["status_str"] != "success":
                raise ComfyError(f"The run ended with the status {status['status_str']}.")
            return dict(entry["outputs"])

    async def _get(self, path: str) -> dict:
        """Asks again while the server does not answer, until our patience ends."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                async with self._request("GET", path) as answer:
                    return await _json(answer)
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
        with _as_comfyui("ws"):
            message = {"type": "", "data": None, **json.loads(packet.data)}
        kind, data = message["type"], message["data"]
        if isinstance(data, dict) and data.get("prompt_id") == id:
            on_message(message)
            if kind in ENDS or kind == "executing" and data.get("node") is None:
                return


async def _chunks(answer: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in answer.content.iter_chunked(2**16):
        size += len(chunk)
        if size > limit:
            raise ComfyError(f"{answer.url.with_query(None)} sends more than {limit} bytes.")
        yield chunk


async def _json(answer: aiohttp.ClientResponse) -> dict:
    body = b"".join([chunk async for chunk in _chunks(answer, LARGEST_ANSWER)])
    with _as_comfyui(answer.url.path):
        return dict(json.loads(body))


def pictures(outputs: dict[str, dict]) -> list[dict[str, str]]:
    """Where the pictures of a run are, in the order in which they were made."""
    with _as_comfyui("history"):
        places = [place for output in outputs.values() for place in output.get("images", ())]
        return [{name: str(place[name]) for name in ("filename", "subfolder", "type")} for place in places]


def printable(text: str, most: int = 2000) -> str:
    """The text, shortened, without what moves a terminal's cursor or turns writing around."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text[:most])
    return shown + (" ..." if len(text) > most else "")


def _faults(workflow: dict, queued: dict) -> str:
    """What the server finds wrong with a workflow, a line for each fault."""
    if not queued.get("node_errors"):
        return "{message}: {details}".format(**queued["error"]) if "error" in queued else ""
    lines = {}
    for id, node in queued["node_errors"].items():
        for error in node["errors"]:
            # A node's own check is reported for each input that it looked at.
            said = error["details"].split(" - ", 1)[-1]
            lines.setdefault((id, said), f"Node {id}, {workflow[id]['class_type']}: {error['message']}: {error['details']}")
    return "\n".join(lines.values())


@contextmanager
def _as_comfyui(path: str):
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ComfyError(f"/{path.lstrip('/')} gives what no ComfyUI gives: is this the address of one?") from None
