"""What a ComfyUI answers, bounded, checked and made printable: the server is not trusted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import contextmanager
from typing import NamedTuple

import aiohttp

LARGEST_ANSWER = 64 * 2**20  # bytes: ComfyUI's own are far below


class ComfyError(RuntimeError):
    """The server refuses something, fails at it, or is no ComfyUI."""

    def __init__(self, text: str):
        super().__init__(printable(text))


class ServerGone(ComfyError):
    """No server answers."""


class Run(NamedTuple):
    """A run that has ended well.

    outputs: of its output nodes, by node
    cached: the nodes whose outputs the server had from earlier runs
    seconds: what the server itself took, where it says so
    """

    outputs: dict[str, dict]
    cached: frozenset[str]
    seconds: float | None


def run_of(entry: dict) -> Run:
    """A run by its entry in the history.

    raises: ComfyError where it failed or was interrupted
    """
    with as_comfyui("history"):
        status, cached, times = entry["status"], frozenset(), {}
        for kind, message in status["messages"]:
            if kind == "execution_error":
                raise ComfyError(f"{message['node_type']}: {message['exception_message']}")
            if kind == "execution_interrupted":
                raise ComfyError(f"The run was interrupted at {message.get('node_type')}.")
            if kind == "execution_cached":
                cached = frozenset(map(str, message["nodes"]))
            times[kind] = message.get("timestamp")
        if status["status_str"] != "success":
            raise ComfyError(f"The run ended with the status {status['status_str']}.")
        begin, end = times.get("execution_start"), times.get("execution_success")
        return Run(dict(entry["outputs"]), cached, (end - begin) / 1000 if begin and end else None)


async def chunks(answer: aiohttp.ClientResponse, limit: int) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in answer.content.iter_chunked(2**16):
        size += len(chunk)
        if size > limit:
            raise ComfyError(f"{answer.url.with_query(None)} sends more than {limit} bytes.")
        yield chunk


async def read_json(answer: aiohttp.ClientResponse) -> dict:
    body = b"".join([chunk async for chunk in chunks(answer, LARGEST_ANSWER)])
    with as_comfyui(answer.url.path):
        return dict(json.loads(body))


def pictures(outputs: dict[str, dict]) -> list[dict[str, str]]:
    """Where the pictures that a run drew are, in the order in which they were made; not those that show what a part is."""
    with as_comfyui("history"):
        drawn = [output for output in outputs.values() if "parts2whole_kept" not in output]
        places = [place for output in drawn for place in output.get("images", ())]
        return [{name: str(place[name]) for name in ("filename", "subfolder", "type")} for place in places]


def warnings(outputs: dict[str, dict]) -> list[tuple[str, str]]:
    """What this pack's nodes warned of: the node's id and the text."""
    with as_comfyui("history"):
        return [(id, str(text)) for id, output in outputs.items() for text in output.get("parts2whole_warnings", ())]


def printable(text: str, most: int = 2000) -> str:
    """The text, shortened, without what moves a terminal's cursor or turns writing around."""
    shown = "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text[:most])
    return shown + (" ..." if len(text) > most else "")


def faults(workflow: dict, queued: dict) -> str:
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
def as_comfyui(path: str):
    try:
        yield
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        raise ComfyError(f"/{path.lstrip('/')} gives what no ComfyUI gives: is this the address of one?") from None
