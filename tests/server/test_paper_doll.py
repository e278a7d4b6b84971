"""The first workflow that a newcomer opens, in the real server, with the pack as the registry has it: its picture has the parts'
colours where the parts are.
"""

import io
import json
from pathlib import Path

import numpy as np
from harness.dolls import API, GRID, draw, save_red_shirt
from harness.host import ROOT
from PIL import Image

from training.paper_dolls.examples import FURTHER, SEED, file_name
from training.paper_dolls.measure import SMALLEST_REGION, colour_error, palette, seen
from training.paper_dolls.pairs import Pair

PICTURES = ROOT / "workflows" / "input"


def test_pictures_and_model_are_there_without_any_setting_up(server):
    names = {picture.name for picture in PICTURES.glob("*.png")}
    assert names and all((Path(server.base) / "input" / name).read_bytes() == (PICTURES / name).read_bytes() for name in names)
    checkpoints = server.get("/object_info/Parts2WholeLoader")["Parts2WholeLoader"]["input"]["required"]["checkpoint"]
    assert "paper_doll" in checkpoints[1]["options"]


def test_the_published_pack_has_the_nodes_their_pages_and_templates_and_nothing_else(server):
    pack = server.base / "custom_nodes" / "comfyui-parts2whole"
    assert {path.name for path in pack.iterdir() if path.name != "__pycache__"} == {
        "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "README.md", "__init__.py", "attention", "catalogue", "docs", "encoders",
        "locales", "models", "nodes", "pictures", "pyproject.toml", "sheets", "subgraphs", "web", "workflows",
    }
    assert not [path.name for path in pack.rglob("*") if path.suffix == ".jsonl"]
    nodes = {id for id in server.get("/object_info") if id.startswith("Parts2Whole")}
    assert nodes and all((pack / "web" / "docs" / f"{id}.md").is_file() for id in nodes)
    templates = server.get("/workflow_templates")["comfyui-parts2whole"]
    assert sorted(templates) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_pictures_and_prompt_are_those_of_one_figure(true):
    """What the other tests take for granted."""
    parts = {n["inputs"]["label"]: n["inputs"]["image"] for n in API.values() if n["class_type"] == "Parts2WholeLoadPart"}
    (pose,) = (n["inputs"]["image"] for n in API.values() if n["class_type"] == "LoadImage")
    assert parts.keys() == true.doll.wears.keys()
    others = {file_name(part, number): (Pair(SEED, figure), part) for figure, part, number in FURTHER}
    poses = {pose: true.pose, **{name: pair.pose for name, (pair, part) in others.items() if part == "pose"}}
    further = {name: pair.reference(part) for name, (pair, part) in others.items() if part != "pose"}
    assert {*parts.values(), *poses, *further} == {picture.name for picture in PICTURES.iterdir()}
    assert true.doll.caption in [n["inputs"]["text"] for n in API.values() if n["class_type"] == "CLIPTextEncode"]
    assert all(np.array_equal(np.asarray(Image.open(PICTURES / name)), picture) for name, picture in poses.items())
    for name, reference in {**{name: true.reference(label) for label, name in parts.items()}, **further}.items():
        picture = Image.open(PICTURES / name)
        assert np.array_equal(np.asarray(picture.getchannel("A")), np.asarray(reference.mask))
        assert np.array_equal(np.asarray(picture.convert("RGB")), np.asarray(reference.image))


def test_the_demo_shows_parts_pose_and_result(server, doll):
    from bench.demo import contact_sheet, dressed

    made = dressed(server, API)
    assert [*made][-2:] == ["pose", "result"] and len(made) == 7
    assert np.array_equal(np.asarray(made["result"].convert("RGB")), doll)
    assert contact_sheet(made).width > 7 * 128


def test_each_part_has_its_references_colour(doll, true):
    drawing = true.drawing
    errors = {
        label: colour_error(doll, seen(drawing.regions[label]), palette(label, wear))
        for label, wear in true.doll.wears.items() if seen(drawing.regions[label]).sum() >= SMALLEST_REGION
    }
    assert len(errors) >= 4
    assert np.mean(list(errors.values())) < 10, errors
    assert max(errors.values()) < 16, errors


def test_another_reference_changes_its_part(server, doll, true):
    """The figure of the parts wears something else in another run: its colours come and the old ones go."""
    workflow = json.loads(json.dumps(API))
    node = next(n for n in workflow.values() if n["inputs"].get("label") == "upper body clothes")
    red = save_red_shirt(true, Path(server.base) / "input" / "other.png")
    node["inputs"]["image"] = "other.png"
    changed = draw(server, workflow)
    region = seen(true.drawing.regions["upper body clothes"])
    assert colour_error(changed, region, red) < 0.5 * colour_error(doll, region, red)
    assert draw(server, API).tobytes() == doll.tobytes()


def test_an_outfit_grid_in_one_queue(server, true):
    """Every picture of a column wears its garment, and the sheet shows them all."""
    grid = json.loads(json.dumps(GRID))
    grid["16"]["inputs"]["steps"] = 10
    outputs = server.run(grid)
    saved, sheet = (outputs[node]["images"] for node in ("18", "30"))
    dolls = [np.asarray(Image.open(io.BytesIO(server.view(place))).convert("RGB")) for place in saved]
    assert len(dolls) == 6 and {doll.shape for doll in dolls} == {(384, 256, 3)} and len({doll.tobytes() for doll in dolls}) == 6
    label = "upper body clothes"
    region = seen(true.drawing.regions[label])
    wears = [true.doll.wears[label], *(Pair(SEED, figure).doll.wears[label] for figure, part, _ in FURTHER if part == label)]
    for column, wear in enumerate(wears):
        errors = [colour_error(doll, region, palette(label, wear)) for doll in dolls]
        worn = errors[column::3]
        assert max(worn) < 0.7 * min(error for error in errors if error not in worn), (column, errors)
    (sheet,) = sheet
    width, height = Image.open(io.BytesIO(server.view(sheet))).size
    assert width > 3 * 256 and height > 2 * 384


def test_what_takes_time_shows_its_progress(server):
    workflow = json.loads(json.dumps(API))
    next(n for n in workflow.values() if n["inputs"].get("label") == "shoes")["inputs"]["custom_label"] = "boots"
    ended = {}

    def note(message):
        if message["type"] == "progress":
            data = message["data"]
            ended[workflow[data["node"]]["class_type"]] = data["value"], data["max"]

    server.run(workflow, note)
    assert ended["Parts2WholeEncodeLabels"] == ended["Parts2WholeApplyImageAttention"] == (5, 5)
    assert ended["Parts2WholeEncodeAppearance"] == (2, 2), "the changed part alone"
    assert ended["KSampler"] == (20, 20)


def test_warnings_come_to_the_nodes_once_and_again_from_the_cache(server):
    """Whatever goes wrong in silence is said while the node runs, and kept with what it gave."""
    workflow = json.loads(json.dumps(API))
    workflow["16"]["inputs"]["steps"] = 3
    workflow["6"]["inputs"]["value"] = 160
    workflow["10"]["inputs"]["image"] = "doll_face.png"
    workflow["4"]["inputs"]["custom_label"] = "very " * 80 + "long"
    said, shown = [], {}

    def note(message):
        if message["type"] == "parts2whole.warnings":
            said.append((message["data"]["node"], *message["data"]["texts"]))
        if message["type"] == "executed":  # of a node in the cache too
            shown[message["data"]["node"]] = message["data"]["output"]

    outputs = server.run(workflow, note)
    texts = {node: output["parts2whole_warnings"] for node, output in outputs.items() if output.get("parts2whole_warnings")}
    assert {node: [text[:24] for text in each] for node, each in texts.items()} == {
        "5": ["the label 'very very ver"], "8": ["this model was made for "], "11": ["the pose picture is anot"],
    }
    assert sorted(said) == sorted([*((node, *each) for node, each in texts.items()), ("16", said[-1][1])])
    assert "made for pictures of 256x384, and these are 160x384" in said[-1][1] and server.log().count(said[-1][1]) == 1
    shown.clear()
    server.run(workflow, note)
    again = {node: output["parts2whole_warnings"] for node, output in shown.items() if node in texts}
    assert again == (texts if server.shows_again() else {})
    workflow["16"]["inputs"]["seed"] = 9
    id = server.post("/prompt", {"prompt": workflow})
    server.run({"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}})  # waits for the one that nobody listened to
    assert server.get(f"/history/{id['prompt_id']}")[id["prompt_id"]]["status"]["status_str"] == "success"
    assert not [text for output in server.run(API).values() for text in output.get("parts2whole_warnings", ())]
