"""From photographs to a picture in the real server: small models of the kinds that a user downloads stand in for them."""

import io
import json
import shutil

import numpy as np
import pytest
import torch
from harness.densepose_models import HEAD, LEG, TORSO, GivesDictionary, save_model, save_module
from harness.host import ROOT
from harness.parsers import save_parser
from harness.workbench import run
from parts2whole.pictures.crop import Crop
from parts2whole.pictures.detail import crop_for_detail
from parts2whole.pictures.label_maps import SCHEMES
from PIL import Image

POSE = ROOT / "workflows" / "input" / "doll_pose.png"


def workflow(name: str) -> dict:
    return json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())


def image(server, outputs, node):
    return np.asarray(Image.open(io.BytesIO(server.view(outputs[node]["images"][0]))).convert("RGB"))


def maps_of(iuv: np.ndarray) -> tuple[torch.Tensor, ...]:
    """The maps by which a model would say just this picture: one pixel for each of its pixels."""
    v, u, part = torch.from_numpy(iuv.copy()).long().unbind(-1)
    fine = torch.nn.functional.one_hot(part, 25).movedim(-1, 0).float()
    coarse = torch.stack([(part == 0).float(), (part > 0).float()])
    charts = (((each + 0.5) / 255).expand(25, -1, -1) for each in (u, v))
    return tuple(each[None].contiguous() for each in (coarse, fine, *charts))


@pytest.fixture(scope="module")
def models(server):
    """models/densepose and models/human_parsing, as a user would fill them."""
    iuv = np.asarray(Image.open(POSE).convert("RGB"))
    height, width = iuv.shape[:2]
    folder = server.base / "models" / "densepose"
    with torch.inference_mode(False):
        save_module(GivesDictionary(torch.tensor([[0.0, 0, width, height]]), maps_of(iuv)), folder / "doll.pt")
    save_model(folder / "densepose_r50_fpn_dl.torchscript", "tuple", [[150, 60, 380, 700]])
    save_parser(server.base / "models" / "human_parsing" / "segformer_b2_clothes", SCHEMES["ATR"])
    yield iuv
    shutil.rmtree(folder)
    shutil.rmtree(server.base / "models" / "human_parsing")


def options(server) -> list[str]:
    node = server.get("/object_info/Parts2WholePoseFromPhoto")["Parts2WholePoseFromPhoto"]
    return node["input"]["required"]["densepose"][1]["options"]


def test_without_a_model_the_server_says_where_it_goes(server):
    assert options(server) == ["none found in models/densepose"]
    photo = {"1": {"class_type": "LoadImage", "inputs": {"image": POSE.name}}, "2": {
        "class_type": "Parts2WholePoseFromPhoto",
        "inputs": {"image": ["1", 0], "densepose": options(server)[0], "person": 0, "swap_uv": False},
    }, "3": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}}
    with pytest.raises(RuntimeError, match="No DensePose model .*models/densepose.*LayerNorm/DensePose-TorchScript"):
        server.run(photo)


def test_the_doll_takes_the_pose_that_the_model_finds(server, models):
    """A model that finds just the pose of the example: then the doll is that of the example, to the byte."""
    assert options(server) == ["densepose_r50_fpn_dl.torchscript", "doll.pt"]
    doll = workflow("paper_doll")
    doll["16"]["inputs"]["steps"] = 4
    save = next(id for id, node in doll.items() if node["class_type"] == "SaveImage")
    load, apply = "10", "11"
    assert doll[load]["inputs"]["image"] == POSE.name and doll[apply]["inputs"]["image"] == [load, 0]
    expected = image(server, server.run(doll), save)
    doll["30"] = {"class_type": "Parts2WholePoseFromPhoto", "inputs": {
        "image": [load, 0], "densepose": "doll.pt", "person": 0, "swap_uv": False,
    }}
    doll["31"] = {"class_type": "PreviewImage", "inputs": {"images": ["30", 0]}}
    doll["32"] = {"class_type": "MaskToImage", "inputs": {"mask": ["30", 1]}}
    doll["33"] = {"class_type": "PreviewImage", "inputs": {"images": ["32", 0]}}
    doll[apply]["inputs"]["image"] = ["30", 0]
    outputs = server.run(doll)
    assert np.array_equal(image(server, outputs, "31"), models)
    assert np.array_equal(image(server, outputs, "33")[..., 0] > 0, models[..., 2] > 0)
    assert np.array_equal(image(server, outputs, save), expected)
    doll["30"]["inputs"]["swap_uv"] = True
    assert not np.array_equal(image(server, server.run(doll), save), expected)
    doll["30"]["inputs"]["person"] = 4
    with pytest.raises(RuntimeError, match="Parts2WholePoseFromPhoto: The DensePose model finds 1 person, and `person` is 4"):
        server.run(doll)


@pytest.fixture(scope="module")
def photos(server, models):
    """The workflow from_photos with the model in the pack, few steps, and photographs of noise."""
    photos = workflow("from_photos")
    photos["1"]["inputs"]["checkpoint"] = "paper_doll"
    photos["6"]["inputs"]["value"], photos["7"]["inputs"]["value"] = 256, 384
    photos["16"]["inputs"]["steps"] = photos["30"]["inputs"]["steps"] = 2
    for name in ("2", "3", "4"):
        pixels = np.random.default_rng(int(name)).integers(60, 255, (301, 203, 3), dtype=np.uint8)
        photos[name]["inputs"]["image"] = f"photo_{name}.png"
        Image.fromarray(pixels).save(server.base / "input" / f"photo_{name}.png")
    return photos


def crop_of(photos: dict, pose: np.ndarray, label: str) -> Crop:
    """Where in the result of 256x384 the part of the body is drawn again."""
    mask = run("Parts2WholePoseRegion", image=torch.from_numpy(pose / np.float32(255))[None], label=label, grow=0.04)
    options = photos["28"]["inputs"]
    return crop_for_detail(torch.zeros(1, 384, 256, 3), mask, (0, 0, 0, 0), options["factor"], options["padding"]).crop


@pytest.mark.parametrize("label, parts", [("face", [HEAD]), ("upper body clothes", [TORSO])])
def test_the_workflow_from_photographs(server, photos, label, parts):
    """The pass of detail is over the place that the pose says, and the rest of the picture is the first one's, to the bit."""
    photos = {**photos, "27": {**photos["27"], "inputs": {**photos["27"]["inputs"], "label": label}}}
    log = len(server.log())
    outputs = server.run(photos)
    before, after, detail, pose = (image(server, outputs, node) for node in ("33", "18", "34", "25"))
    assert before.shape == after.shape == (384, 256, 3) and before.std() > 1 and image(server, outputs, "22").std() > 1
    assert pose.shape == (768, 512, 3) and {*np.unique(pose[..., 2])} == {0, HEAD, TORSO, LEG}
    crop = crop_of(photos, pose, label)
    inside = np.zeros((384, 256), bool)
    inside[crop.y:crop.y + crop.height, crop.x:crop.x + crop.width] = True
    assert np.array_equal(after[~inside], before[~inside]) and 0 < inside.mean() < 0.5
    assert inside[np.isin(pose[::2, ::2, 2], parts)].all(), "the place of these parts of the body is in the crop"
    assert (after[inside] != before[inside]).mean() > 0.2
    for side, of in zip(detail.shape, (crop.height, crop.width)):
        assert side % 8 == 0 and abs(side - 3 * of) < 4
    said = server.log()[log:]
    assert "was laid over" not in said and "made for pictures" not in said


def test_a_pose_without_the_part_of_the_body_is_told(server, photos):
    photos = {**photos, "27": {**photos["27"], "inputs": {**photos["27"]["inputs"], "label": "shoes"}}}
    with pytest.raises(RuntimeError, match="Parts2WholeCropForDetail: The mask is nowhere above 0.5"):
        server.run(photos)
