"""The workflows that draw a picture again, in the real server."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.host import ROOT
from harness.workbench import run
from parts2whole.pictures.detail import crop_for_detail
from PIL import Image

WARNING = "Parts2Whole: "


def load(name, **steps):
    """steps: fewer, by node, where the picture does not matter"""
    workflow = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    for node, count in steps.items():
        workflow[node.removeprefix("_")]["inputs"]["steps"] = count
    return workflow


def draw(server, workflow) -> dict[str, np.ndarray]:
    """The pictures that are saved and shown, by node, drawn without a warning."""
    said = server.log().count(WARNING)
    files = {node: server.view(output["images"][0]) for node, output in server.run(workflow).items()}
    assert server.log().count(WARNING) == said, server.log()[-2000:]
    return {node: np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for node, file in files.items()}


def test_a_face_is_drawn_again_and_the_rest_stays(server):
    workflow = load("detail")
    pictures = draw(server, workflow)
    before, after, detail = (pictures[node] for node in ("30", "18", "31"))
    pose = Image.open(ROOT / "workflows" / "input" / workflow["10"]["inputs"]["image"]).convert("RGB")
    options = workflow["25"]["inputs"]
    mask = run("Parts2WholePoseRegion", image=torch.from_numpy(np.asarray(pose) / np.float32(255))[None], label="face", grow=0.04)
    box = crop_for_detail(torch.zeros(1, *before.shape), mask, (0, 0, 0, 0), options["factor"], options["padding"]).crop
    inside = np.zeros(before.shape[:2], bool)
    inside[box.y:box.y + box.height, box.x:box.x + box.width] = True
    assert np.array_equal(after[~inside], before[~inside]) and 0 < inside.mean() < 0.5
    assert (after[inside] != before[inside]).mean() > 0.2
    assert detail.shape[0] % 8 == detail.shape[1] % 8 == 0 and detail.shape[0] == round(box.height * options["factor"])


def test_a_picture_is_drawn_larger_in_bands(server):
    pictures = draw(server, load("upscale", _16=4, _27=2))
    before, after = (pictures[node] for node in ("30", "18"))
    assert after.shape == (before.shape[0] * 2, before.shape[1] * 2, 3)
    small = np.asarray(Image.fromarray(after).resize(before.shape[1::-1], Image.Resampling.BOX), float)
    assert np.abs(small - before).mean() < 25, "it is the same picture"


def test_a_pose_without_the_part_is_told(server):
    Image.new("RGB", (64, 96)).save(Path(server.base) / "input" / "nobody.png")
    workflow = load("detail", _16=1, _27=1)
    workflow["10"]["inputs"]["image"] = "nobody.png"
    with pytest.raises(RuntimeError, match="The mask is nowhere above 0.5, so there is nothing to crop"):
        server.run(workflow)
