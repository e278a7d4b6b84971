"""The first workflow that a newcomer opens, in the real server, with the pack as the registry has it: its picture has the parts'
colours where the parts are.
"""

import asyncio
import io
import json
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from comfy_answers import pictures
from harness.host import ROOT
from PIL import Image

from training.paper_dolls.examples import FIGURE, FURTHER, SEED, file_name, save_part
from training.paper_dolls.measure import SMALLEST_REGION, colour_error, palette, seen
from training.paper_dolls.pairs import Pair

API, GRID = (json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text()) for name in ("paper_doll", "outfit_grid"))
PICTURES = ROOT / "workflows" / "input"


def draw(server, workflow):
    (saved,) = (picture for output in server.run(workflow).values() for picture in pictures({"": output}))
    return np.asarray(Image.open(io.BytesIO(server.view(saved))).convert("RGB"))


@pytest.fixture(scope="module")
def doll(server):
    return draw(server, API)


@pytest.fixture(scope="module")
def true():
    return Pair(SEED, FIGURE)


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
    others = {file_name(f"{part} {number}"): (Pair(SEED, figure), part) for figure, part, number in FURTHER}
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


def save_red_shirt(true, path):
    """The figure's upper body clothes in plain red. Returns the palette."""
    label = "upper body clothes"
    wear = true.doll.wears[label]._replace(pattern="plain", colours=((0.8, 0.1, 0.1), (0.8, 0.1, 0.1)))
    save_part(true.with_wear(label, wear), label, path)
    return palette(label, wear)


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


@pytest.fixture
def compose(server, tmp_path):
    """workflows/api/compose.py as a user runs it."""
    api = ROOT / "workflows" / "api"

    def run(*options, workflow=api / "paper_doll.json"):
        return subprocess.run(
            [sys.executable, api / "compose.py", workflow, "--server", f"http://{server.address}", *options],
            cwd=tmp_path, capture_output=True, text=True,
        )

    return run


def test_the_headless_example_does_what_it_says(server, doll, true, tmp_path, compose):
    """With a part and the seed changed, and with what a user may get wrong."""
    red = save_red_shirt(true, tmp_path / "red.png")
    done = compose("--part", f"upper body clothes={tmp_path / 'red.png'}", "--output", "dressed.png")
    assert done.returncode == 0 and "20 of 20" in done.stdout, done.stderr
    dressed = np.asarray(Image.open(tmp_path / "dressed.png"))
    region = seen(true.drawing.regions["upper body clothes"])
    assert colour_error(dressed, region, red) < 0.5 * colour_error(doll, region, red)
    quick = json.loads(json.dumps(API))
    quick["16"]["inputs"]["steps"] = 2
    (tmp_path / "quick.json").write_text(json.dumps(quick))
    for seed in ("12345", "54321"):
        assert compose("--seed", seed, "--output", f"{seed}.png", workflow=tmp_path / "quick.json").returncode == 0
    one, other = (np.asarray(Image.open(tmp_path / f"{seed}.png")) for seed in ("12345", "54321"))
    assert not np.array_equal(one, other)
    done = compose("--part", f"shoes={tmp_path / 'gone.png'}")
    assert done.returncode and "there is no picture" in done.stderr and "Traceback" not in done.stderr
    done = compose("--server", "http://127.0.0.1:9")
    assert done.returncode and "No ComfyUI answers at http://127.0.0.1:9" in done.stderr and "Traceback" not in done.stderr
    done = compose(
        "--server", server.address, "--part", "face#1=red.png", "--output", "new/first.png", workflow=tmp_path / "quick.json"
    )
    assert done.returncode == 0 and (tmp_path / "new" / "first.png").is_file(), done.stderr
    done = compose("--part", "gloves=red.png")
    assert done.returncode and "no Load Part with the label 'gloves': it has face, hair or headwear" in done.stderr
    assert not (tmp_path / "composed.png").exists()
    done = compose(workflow=ROOT / "workflows" / "paper_doll.json")
    assert done.returncode and "is not in API format" in done.stderr and "Traceback" not in done.stderr


@asynccontextmanager
async def proxy(server, token):
    """The server behind a path, for those who bring the token."""

    async def forward(request):
        if request.headers.get("Authorization") != f"Bearer {token}":
            return web.Response(status=401)
        url = f"http://{server.address}{request.path.removeprefix('/rooms/7')}"
        if "Upgrade" in request.headers:
            front = web.WebSocketResponse()
            await front.prepare(request)
            async with session.ws_connect(url, params=request.query) as back:
                async for message in back:
                    await (front.send_str if message.type == aiohttp.WSMsgType.TEXT else front.send_bytes)(message.data)
            return front
        body, headers = await request.read(), {"Content-Type": request.headers.get("Content-Type", "")}
        async with session.request(request.method, url, params=request.query, data=body, headers=headers) as answer:
            return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)

    app = web.Application(client_max_size=2**24)
    app.router.add_route("*", "/rooms/7/{path:.*}", forward)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield f"127.0.0.1:{runner.addresses[0][1]}/rooms/7"
    await runner.cleanup()


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_headless_example_finds_a_server_behind_a_path_and_a_header(server, tmp_path, compose, slash):
    """Label and picture come from string nodes."""
    workflow = json.loads(json.dumps(API))
    workflow["16"]["inputs"]["steps"] = 1
    for node, name, text in (("2", "custom_label", "face"), ("3", "image", "gone.png")):
        workflow[name] = {"class_type": "PrimitiveString", "inputs": {"value": text}}
        workflow[node]["inputs"][name] = [name, 0]
    (tmp_path / "one.json").write_text(json.dumps(workflow))
    Image.new("RGB", (64, 64), "blue").save(tmp_path / "mine.png")
    changes = "--part", "face=mine.png", "--part", "hair or headwear=mine.png", "--seed", str(len(slash))

    async def go(token):
        async with proxy(server, "secret") as address:
            options = *changes, "--server", address + slash, "--header", f"Authorization: Bearer {token}"
            return await asyncio.to_thread(compose, *options, workflow=tmp_path / "one.json")

    done = asyncio.run(go("guess"))
    assert done.returncode and "answers 401" in done.stderr and "Traceback" not in done.stderr
    done = asyncio.run(go("secret"))
    assert done.returncode == 0 and "1 of 1" in done.stdout and (tmp_path / "composed.png").is_file(), done.stderr


def test_the_headless_example_fetches_what_is_only_shown_and_names_the_node_of_a_fault(tmp_path, compose):
    grid = json.loads(json.dumps(GRID))
    grid["16"]["inputs"]["steps"] = 2
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    done = compose("--output", "grid.png", workflow=tmp_path / "grid.json")
    names = ["grid.png", *(f"grid_{i}.png" for i in range(2, 8))]
    assert done.returncode == 0 and done.stdout.splitlines()[-7:] == names, done.stderr
    assert Image.open(tmp_path / "grid_7.png").width > 3 * 256, "the sheet, though it is not saved"
    del grid["29"]["inputs"]["columns"]
    grid["2"]["inputs"]["image"] = "gone.png"
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    done = compose(workflow=tmp_path / "grid.json")
    assert done.returncode and "Node 29, Parts2WholeOutfitGrid: Required input is missing: columns" in done.stderr
    assert done.stderr.count("gone.png") == 1
    grid = {**GRID, "30": {**GRID["30"], "inputs": {**GRID["30"]["inputs"], "height": 0}}}
    grid["16"] = {**grid["16"], "inputs": {**grid["16"]["inputs"], "steps": 1}}
    (tmp_path / "grid.json").write_text(json.dumps(grid))
    done = compose(workflow=tmp_path / "grid.json")
    assert done.returncode == 0 and "leaves these out" in done.stderr and "Node 30, Parts2WholeOutfitSheet" in done.stderr
