"""Warnings, where people look: on the node that runs, and in the log."""

from __future__ import annotations

import logging

from comfy_execution.utils import get_executing_context
from server import PromptServer

# The message to the editor, {"node", "texts"}, and the name in a node's `ui`, which the host keeps with what the node gave: see
# web/warnings.js.
EVENT, UI = "parts2whole.warnings", "parts2whole_warnings"

# What each node of the prompt that runs was said, by both their ids.
_said: dict[tuple[str, str], list[str]] = {}


def warn(message: str):
    """Says it once on a node in a run, however often it is called, and in the log; outside the host's execution in the log only.

    message: plain sentences: what came, what is expected, what mends it
    """
    running = get_executing_context()
    if running is not None:
        if said_now() is None:
            for other in [key for key in _said if key[0] != running.prompt_id]:
                del _said[other]
        texts = _said.setdefault((running.prompt_id, running.node_id), [])
        if message in texts:
            return
        texts.append(message)
    logging.warning("Parts2Whole: %s", message)
    server = getattr(PromptServer, "instance", None)
    if running is not None and server is not None and server.client_id is not None:
        server.send_sync(EVENT, {"node": running.node_id, "prompt_id": running.prompt_id, "texts": texts}, server.client_id)


def said_now() -> list[str] | None:
    """What was said on the node that is executed, in this run; None where nothing was."""
    running = get_executing_context()
    return running and _said.get((running.prompt_id, running.node_id))
