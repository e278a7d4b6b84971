"""The first workflow that a newcomer opens, and what it draws."""

import io
import json
from pathlib import Path

from harness.server import ROOT  # first: it puts workflows/api on the path

# isort: split
import numpy as np
from comfy_answers import pictures
from PIL import Image

from training.paper_dolls.examples import save_part
from training.paper_dolls.measure import palette
from training.paper_dolls.pairs import Pair

API, GRID = (json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text()) for name in ("paper_doll", "outfit_grid"))


def draw(server, workflow: dict) -> np.ndarray:
    """[H, W, 3] uint8, of a workflow that saves one picture."""
    (saved,) = (picture for output in server.run(workflow).values() for picture in pictures({"": output}))
    return np.asarray(Image.open(io.BytesIO(server.view(saved))).convert("RGB"))


def save_red_shirt(true: Pair, path: Path) -> np.ndarray:
    """The figure's upper body clothes in plain red. Returns the palette."""
    label = "upper body clothes"
    wear = true.doll.wears[label]._replace(pattern="plain", colours=((0.8, 0.1, 0.1), (0.8, 0.1, 0.1)))
    save_part(true.with_wear(label, wear), label, path)
    return palette(label, wear)
