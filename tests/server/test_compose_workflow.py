"""Where compose.py and the catalogue put pictures, texts and numbers: in workflows as users wire them, without a server."""

import json
import sys
from pathlib import Path

import pytest
from harness.host import ROOT

sys.path.append(str(ROOT / "workflows" / "api"))

import workflow_changes
from workflow_changes import Changes, NoPlace

API, GRID = (json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text()) for name in ("paper_doll", "outfit_grid"))
STRING = {"class_type": "PrimitiveString", "inputs": {"value": " coat "}}


@pytest.fixture
def workflow():
    return json.loads(json.dumps(API))


def change(workflow, part=(), **changes):
    """Returns what was uploaded."""
    slots = workflow_changes.change(workflow, Changes(parts={label: Path(path) for label, path in part}, **changes))
    for inputs, name, picture in slots:
        inputs[name] = f"{picture.stem} (1).png"
    return [slot.picture.name for slot in slots]


def load_part(**inputs):
    return {"class_type": "Parts2WholeLoadPart", "inputs": {"image": "plain.png", "label": "face", **inputs}}


def test_parts_of_one_label_are_told_apart():
    workflow = json.loads(json.dumps(GRID))
    workflow["25"]["inputs"]["custom_label"] = " coat "
    change(workflow, [("face#2", "mine.png"), ("coat", "mine.png")])
    changed = {id for id, node in workflow.items() if node["inputs"].get("image") != GRID[id]["inputs"].get("image")}
    assert changed == {"24", "25"} and workflow["24"]["inputs"]["image"] == "mine (1).png"


@pytest.mark.parametrize("inputs", [{"label": ["9", 0]}, {"custom_label": ["9", 0]}, {"custom_label": ["8", 0]}])
def test_a_label_that_comes_from_a_string_node(inputs):
    reroute = {"class_type": "Reroute", "inputs": {"": ["9", 0]}}
    workflow = {"2": load_part(**inputs), "3": load_part(), "8": reroute, "9": STRING}
    change(workflow, [("coat" if "custom_label" in inputs else " coat ", "mine.png"), ("face", "other.png")])
    assert workflow["2"]["inputs"]["image"] == "mine (1).png" and workflow["3"]["inputs"]["image"] == "other (1).png"


def test_a_label_that_is_computed_is_named_by_its_node():
    joined = {"class_type": "StringConcatenate", "inputs": {"string_a": "a ", "string_b": "coat", "delimiter": ""}}
    ring = {"class_type": "Reroute", "inputs": {"": ["8", 0]}}
    workflow = {"2": load_part(label=["7", 0]), "3": load_part(custom_label=["8", 0]), "4": load_part(label=["99", 0])}
    workflow |= {"7": joined, "8": ring}
    change(workflow, [("node 2", "mine.png")])
    assert workflow["2"]["inputs"]["image"] == "mine (1).png"
    with pytest.raises(NoPlace, match="no Load Part with the label 'face': it has node 2, node 3, node 4"):
        change(workflow, [("face", "mine.png")])


def test_a_picture_that_comes_from_a_string_node_is_replaced():
    workflow = {"2": load_part(image=["9", 0]), "9": STRING}
    change(workflow, [("face", "mine.png")])
    assert workflow["2"]["inputs"]["image"] == "mine (1).png" and workflow["9"]["inputs"]["value"] == " coat "


def test_the_pose_is_put_where_its_picture_is_loaded(workflow):
    """Also behind nodes that change it; the name may come from a string node."""
    (pose,) = (node for node in workflow.values() if node["class_type"] == "Parts2WholeApplyPose")
    (load,) = (node for node in workflow.values() if node["class_type"] == "LoadImage")
    workflow["scale"] = {"class_type": "ImageScale", "inputs": {"image": pose["inputs"]["image"], "width": 8}}
    workflow["string"], load["inputs"]["image"], pose["inputs"]["image"] = STRING, ["string", 0], ["scale", 0]
    assert change(workflow, pose=Path("iuv.png")) == ["iuv.png"]
    assert load["inputs"]["image"] == "iuv (1).png" and workflow["scale"]["inputs"]["image"] != "iuv (1).png"


def test_the_prompt_is_put_where_its_text_is(workflow):
    sampler, prompt = workflow["16"]["inputs"], workflow["13"]["inputs"]
    change(workflow, prompt="in the rain")
    assert prompt["text"] == "in the rain"
    both = {"positive": sampler["positive"], "negative": ["14", 0]}
    workflow["control"] = {"class_type": "ControlNetApplyAdvanced", "inputs": both}
    workflow["guider"] = {"class_type": "CFGGuider", "inputs": {"positive": ["control", 0]}}
    workflow["16"] = {"class_type": "SamplerCustomAdvanced", "inputs": {"guider": ["guider", 0], "noise": ["noise", 0]}}
    workflow["noise"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": ["string", 0]}}
    workflow["string"], prompt["text"] = STRING, ["string", 0]
    negative = dict(workflow["14"]["inputs"])
    change(workflow, prompt="in the sun", seed=5)
    assert prompt["text"] == "in the sun" and workflow["noise"]["inputs"]["noise_seed"] == 5
    assert workflow["14"]["inputs"] == negative and "text" not in workflow["control"]["inputs"]


@pytest.mark.parametrize("option, value", [("pose", Path("iuv.png")), ("prompt", "rain"), ("seed", 1)])
def test_a_change_that_has_no_place_is_refused(option, value):
    encode = {"class_type": "CLIPTextEncodeSDXL", "inputs": {"text_g": "a", "text_l": "b"}}
    drawn = {"class_type": "VAEDecode", "inputs": {"samples": ["1", 0]}}
    pose = {"class_type": "Parts2WholeApplyPose", "inputs": {"image": ["drawn", 0]}}
    workflow = {"1": {"class_type": "TheirSampler", "inputs": {"seed": 3}}, "drawn": drawn, "pose": pose, "encode": encode}
    workflow["2"] = {"class_type": "KSampler", "inputs": {"positive": ["encode", 0]}}
    before = json.dumps(workflow)
    with pytest.raises(NoPlace, match=f"a {option} has no place"):
        change(workflow, **{option: value})
    assert json.dumps(workflow) == before
