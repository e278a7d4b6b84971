"""The pack in the real server over HTTP, with the tiny checkpoint."""

import io
import json
import urllib.request

import numpy as np
import pytest
from harness.host import ROOT
from PIL import Image

PICTURES = {"2": "ref_0.png", "3": "ref_1.png", "4": "ref_2.png", "10": "pose.png"}


def tiny_workflow() -> dict:
    """workflows/api/parts_to_whole.json at the size of the tiny checkpoint and with its pictures."""
    workflow = json.loads((ROOT / "workflows" / "api" / "parts_to_whole.json").read_text())
    workflow["1"]["inputs"]["checkpoint"] = "tiny"
    for node, picture in PICTURES.items():
        workflow[node]["inputs"]["image"] = picture
    workflow["6"]["inputs"]["value"], workflow["7"]["inputs"]["value"] = 128, 192
    workflow["16"]["inputs"]["steps"] = 4
    return workflow


@pytest.fixture
def workflow():
    return tiny_workflow()


class Watch:
    """Which nodes ran, and which came from the cache."""

    def __init__(self):
        self.ran, self.cached = [], []

    def __call__(self, message):
        if message["type"] == "executing" and message["data"]["node"]:
            self.ran.append(message["data"]["node"])
        elif message["type"] == "execution_cached":
            self.cached = message["data"]["nodes"]


def picture(server, workflow, watch=None, node="18"):
    outputs = server.run(workflow, watch or Watch())
    return np.asarray(Image.open(io.BytesIO(server.view(outputs[node]["images"][0]))))


def free(server):
    server.post("/free", {"unload_models": True, "free_memory": True})
    server.run({"1": {"class_type": "PreviewAny", "inputs": {"source": "x"}}})


def test_the_nodes_and_their_help_are_served(server):
    info = {id: node for id, node in server.get("/object_info").items() if id.startswith("Parts2Whole")}
    assert info.keys() == json.loads((ROOT / "tests" / "nodes" / "schema.json").read_text()).keys()
    for id, node in info.items():
        help_page = server._open(f"/extensions/comfyui-parts2whole/docs/{id}.md").decode()
        assert help_page.startswith(f"# {node['display_name']}")
    assert "IMPORT FAILED" not in server.log()


def test_extra_model_paths_yaml_names_further_folders(server, workflow):
    info = server.get("/object_info/Parts2WholeLoader")["Parts2WholeLoader"]
    assert info["input"]["required"]["checkpoint"][1]["options"] == ["huanngzh/Parts2Whole", "paper_doll", "tiny"]
    expected = picture(server, workflow)
    workflow["1"]["inputs"]["checkpoint"] = "huanngzh/Parts2Whole"
    assert np.array_equal(picture(server, workflow), expected)


def test_the_template_browser_lists_workflows_only(server):
    templates = server.get("/workflow_templates")["comfyui-parts2whole"]
    assert sorted(templates) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


def test_the_whole_workflow(server, workflow):
    free(server)
    watch = Watch()
    result = picture(server, workflow, watch)
    assert result.shape == (192, 128, 3) and result.std() > 1
    assert set(watch.ran) == set(workflow)

    again = Watch()
    workflow["13"]["inputs"]["text"] = "a person in the rain"
    other_prompt = picture(server, workflow, again)
    assert not np.array_equal(other_prompt, result)
    assert not {"1", "5", "8"} & set(again.ran), "another prompt encodes nothing again"


def test_load_part_shows_what_is_kept_also_from_the_cache(server, workflow):
    workflow["2"]["inputs"]["label"] = "hat"
    shown = []

    def note(message):
        if message["type"] == "executed" and message["data"]["node"] == "2":
            shown.append(message["data"]["output"])

    first = server.run(workflow, note)["2"]
    workflow["16"]["inputs"]["seed"] = 77
    server.run(workflow, note)
    assert shown == [first] * (2 if server.shows_again() else 1)
    assert 0 < first["parts2whole_kept"][0] <= 1
    kept = np.asarray(Image.open(io.BytesIO(server.view(first["images"][0]))).convert("RGB"))
    assert kept.shape[0] > 320


def test_the_same_bytes_again_also_with_the_cache_cleared(server, workflow):
    first = picture(server, workflow)
    free(server)
    watch = Watch()
    assert np.array_equal(picture(server, workflow, watch), first)
    assert "8" in watch.ran


def test_the_same_bytes_after_an_interrupt_in_mid_sampling(server, workflow):
    expected = picture(server, workflow)
    workflow["16"]["inputs"]["steps"] = 500

    class Interrupt(Watch):
        def __call__(self, message):
            super().__call__(message)
            if message["type"] == "progress" and message["data"]["max"] == 500 and message["data"]["value"] > 2:
                server.post("/interrupt")

    with pytest.raises(RuntimeError, match="interrupted at KSampler"):
        server.run(workflow, Interrupt())
    workflow["16"]["inputs"]["steps"] = 4
    workflow["16"]["inputs"]["cfg"] = 3.6  # so that the sampler runs
    server.run(workflow)
    free(server)
    workflow["16"]["inputs"]["cfg"] = 3.5
    assert np.array_equal(picture(server, workflow), expected)


def test_swapping_one_part_encodes_that_one_only(server, workflow):
    for part in (2, 3, 4):
        workflow[f"5{part}"] = {
            "class_type": "Parts2WholeEncodeLabels", "inputs": {"clip": ["1", 1], "parts.part0": [f"{part}", 0]},
        }
        encode = json.loads(json.dumps(workflow["8"]))
        encode["inputs"]["parts"] = [f"5{part}", 0]
        workflow[f"8{part}"] = encode
    workflow["8"] = {
        "class_type": "Parts2WholeCombineAppearances",
        "inputs": {f"appearances.appearance{i}": [f"8{i + 2}", 0] for i in range(3)},
    }
    first = picture(server, workflow)
    workflow["4"]["inputs"]["image"] = "ref_1.png"
    watch = Watch()
    assert not np.array_equal(picture(server, workflow, watch), first)
    assert {"84", "8", "9"} <= set(watch.ran) and not {"82", "83"} & set(watch.ran)


@pytest.mark.parametrize("change", ["no pose", "no image attention", "no guidance", "no parts"])
def test_what_a_user_may_leave_out(server, workflow, change):
    if change == "no pose":
        workflow["12"]["inputs"]["model"] = ["9", 0]
    elif change == "no image attention":
        workflow["16"]["inputs"]["model"] = ["11", 0]
    elif change == "no guidance":
        workflow["16"]["inputs"]["cfg"] = 1.0
    else:
        workflow["16"]["inputs"]["model"] = ["1", 0]
    assert picture(server, workflow).std() > 1


def test_any_text_as_label(server, workflow):
    workflow["2"]["inputs"]["label"] = "a red scarf"
    del workflow["2"]["inputs"]["custom_label"], workflow["2"]["inputs"]["mask_source"]
    assert picture(server, workflow).std() > 1


def test_the_release_schedule_through_sampler_custom(server, workflow):
    sampler = workflow["16"]["inputs"]
    workflow["20"] = {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "ddim"}}
    workflow["21"] = {"class_type": "Parts2WholeSigmas", "inputs": {"model": ["1", 0], "steps": 4, "denoise": 1.0}}
    workflow["16"] = {"class_type": "SamplerCustom", "inputs": {
        "model": sampler["model"], "add_noise": True, "noise_seed": 0, "cfg": 3.5, "positive": ["13", 0], "negative": ["14", 0],
        "sampler": ["20", 0], "sigmas": ["21", 0], "latent_image": ["15", 0],
    }}
    assert picture(server, workflow).std() > 1


def test_the_blueprints_are_served(server):
    """Every host that the pack supports has them; one without reads no such folder."""
    ours = {path.stem: path.read_text() for path in (ROOT / "subgraphs").glob("*.json")}
    entries = {entry["name"]: id for id, entry in server.get("/global_subgraphs").items() if entry["name"] in ours}
    assert ours and {name: server.get(f"/global_subgraphs/{id}")["data"] for name, id in entries.items()} == ours


def test_errors_reach_the_user_with_the_node_and_what_mends_it(server, workflow):
    Image.new("RGBA", (8, 8), (255, 0, 0, 0)).save(server.base / "input" / "transparent.png")
    workflow["2"]["inputs"]["image"] = "transparent.png"
    with pytest.raises(RuntimeError, match="Parts2WholeLoadPart: Part 'face': the picture is transparent everywhere"):
        server.run(workflow)


def test_invalid_prompts_are_refused_before_anything_runs(server, workflow):
    del workflow["22"]  # the host runs the valid ones of several outputs: the preview needs no mask_mode
    for node, name, value, message in (
        ("2", "image", "nowhere.png", "Invalid image file: nowhere.png"),
        ("1", "checkpoint", "elsewhere", "No Parts2Whole checkpoint 'elsewhere' in .*models/parts2whole"),
        ("9", "mask_mode", "blur", "blur"),
    ):
        broken = json.loads(json.dumps(workflow))
        broken[node]["inputs"][name] = value
        with pytest.raises(RuntimeError, match=message):
            server.run(broken)


def test_where_nothing_is_to_choose_the_list_and_the_queue_say_so(server):
    for node, widget, said, error, others in (
        (
            "Parts2WholePhotoToParts", "parser", "none found in models/human_parsing",
            "No human parser was found in .*Put a folder there", {"image": ["1", 0], "smallest": 0.0},
        ),
        ("Parts2WholeLoadAppearance", "file", "none found in output/wardrobe", "No appearance was found in .*by Save", {}),
    ):
        assert server.get(f"/object_info/{node}")[node]["input"]["required"][widget][1]["options"] == [said]
        picture = {"class_type": "LoadImage", "inputs": {"image": "pose.png"}}
        asked = {"class_type": node, "inputs": {widget: said, **others}}
        shown = {"class_type": "PreviewAny", "inputs": {"source": ["2", 0]}}
        with pytest.raises(RuntimeError, match=error):
            server.run({"1": picture, "2": asked, "3": shown})


def test_of_parts_to_whole_only_the_model_is_missing_and_one_error_says_where_to_get_it(server):
    template = json.loads((ROOT / "workflows" / "api" / "parts_to_whole.json").read_text())
    with pytest.raises(RuntimeError) as refused:
        server.post("/prompt", {"prompt": template})
    (loader, node), = json.loads(str(refused.value))["node_errors"].items()
    error, = node["errors"]
    assert template[loader]["class_type"] == "Parts2WholeLoader"
    for said in ("huanngzh/Parts2Whole", "5 GB", str(server.base / "models" / "parts2whole"), "paper_doll needs no download"):
        assert said in error["details"]


def test_a_part_may_be_taken_out_at_any_place_but_one_is_needed(server, workflow):
    del workflow["5"]["inputs"]["parts.part0"]
    assert picture(server, workflow).std() > 1
    del workflow["5"]["inputs"]["parts.part1"], workflow["5"]["inputs"]["parts.part2"]
    with pytest.raises(RuntimeError, match="Encode Part Labels got no parts: connect at least one"):
        server.run(workflow)


def test_a_picture_is_uploaded_and_used(server, workflow):
    buffer = io.BytesIO()
    Image.new("RGB", (40, 30), "blue").save(buffer, "png")
    boundary = "partsboundary"
    body = (f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="uploaded.png"\r\n'
            f"Content-Type: image/png\r\n\r\n").encode() + buffer.getvalue() + f"\r\n--{boundary}--\r\n".encode()
    request = urllib.request.Request(
        f"http://{server.address}/upload/image", body, {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert json.loads(urllib.request.urlopen(request).read())["name"] == "uploaded.png"
    workflow["2"]["inputs"]["image"] = "uploaded.png"
    assert picture(server, workflow).std() > 1
