"""Two people in one frame, in the real server: each wears their own."""

import io
import json

import numpy as np
import pytest
from harness.host import ROOT
from PIL import Image

from training.paper_dolls.examples import FIGURE, FURTHER, SEED, file_name
from training.paper_dolls.measure import colour_error, palette
from training.paper_dolls.pairs import Pair

API = json.loads((ROOT / "workflows" / "api" / "two_people.json").read_text())
TOP = "upper body clothes"


def only(class_type: str, **inputs) -> str:
    """The id of the node of this class with these inputs."""
    id, = (id for id, node in API.items() if node["class_type"] == class_type and node["inputs"].items() >= inputs.items())
    return id


def chest(pose: np.ndarray) -> np.ndarray:
    """The upper half of the torso: what is below may be under a belt."""
    torso = np.isin(pose[..., 2], (1, 2))
    rows = np.flatnonzero(torso.any(1))
    torso[(rows[0] + rows[-1]) // 2:] = False
    return torso


def test_each_wears_their_own_top(server):
    before = server.log()
    output = server.run(API)[only("SaveImage")]
    assert "Parts2Whole: " not in server.log()[len(before):], "a frame for two is meant to be wide, and nothing else is wrong"
    picture = np.asarray(Image.open(io.BytesIO(server.view(output["images"][0]))).convert("RGB"))
    first = Pair(SEED, FIGURE)
    figure, = (figure for figure, label, number in FURTHER if (label, number) == (TOP, 2))
    assert only("Parts2WholeLoadPart", image=file_name(TOP)) and only("Parts2WholeLoadPart", image=file_name(TOP, 2))
    height, width = first.pose.shape[:2]
    assert picture.shape == (height, 2 * width, 3)
    other_pose, = (figure for figure, part, _ in FURTHER if part == "pose")
    chests = [chest(pair.pose) for pair in (first, Pair(SEED, other_pose))]
    tops = [palette(TOP, pair.doll.wears[TOP]) for pair in (first, Pair(SEED, figure))]
    for i, half in enumerate((picture[:, :width], picture[:, width:])):
        own, other = (colour_error(half, chests[i], top) for top in (tops[i], tops[1 - i]))
        assert own < 15 and own < other - 5, (own, other)


def test_an_output_without_a_person_says_so(server):
    workflow = json.loads(json.dumps(API))
    people = workflow[only("Parts2WholePeople")]["inputs"]
    del people["poses.pose1"]
    with pytest.raises(RuntimeError, match="People in One Frame has 1 people. Connect one more pose"):
        server.run(workflow)
