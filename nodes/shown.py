"""How a node shows a sheet."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..sheets.writing import notes


def shown(sheet: torch.Tensor, labels: Iterable[str], cls) -> dict:
    """What the node `cls` gives to the editor: the sheet, and as its text the labels that the sheet does not show in full."""
    output = ui.PreviewImage(sheet, cls=cls).as_dict()
    text = notes(labels)
    if text:
        output["text"] = (text,)
        running = get_executing_context()
        if running:  # not where a test or a script calls the node
            PromptServer.instance.send_progress_text(text, running.node_id)
    return output
