"""How a node shows a sheet, and what it took of its pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from comfy_api.latest import ui
from comfy_execution.utils import get_executing_context
from server import PromptServer

from ..attention.bank import Appearance
from ..pictures.part import Part
from ..sheets.appearance_sheet import appearance_sheet
from ..sheets.kept_sheet import kept_shares, kept_sheet
from ..sheets.writing import notes

# What a node shows under this name was not drawn: who fetches what a run drew leaves its pictures out.
KEPT = "parts2whole_kept"


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


def shown_parts(parts: Sequence[Part], cls) -> dict:
    """What the node `cls` gives to the editor: the parts' pictures with the rest dimmed, and the share of each that is kept."""
    shares = tuple(round(share, 4) for part in parts for share in kept_shares(part))
    return {**ui.PreviewImage(kept_sheet(parts), cls=cls).as_dict(), KEPT: shares}


def shown_appearance(appearance: Appearance, cls) -> dict:
    """What the node `cls` gives to the editor: the small pictures of what is worn."""
    return {**ui.PreviewImage(appearance_sheet(appearance), cls=cls).as_dict(), KEPT: ()}
