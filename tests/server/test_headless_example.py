"""workflows/api/compose.py as a user runs it, with the first workflow."""

import asyncio
import json
import subprocess
import sys
from contextlib import asynccontextmanager

import aiohttp
import numpy as np
import pytest
from aiohttp import web
from harness.dolls import API, GRID, save_red_shirt
from harness.host import ROOT
from PIL import Image

from training.paper_dolls.measure import colour_error, seen


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
    assert "counts as the part" not in done.stderr
    Image.new("RGB", (64, 96)).save(tmp_path / "opaque.png")
    done = compose("--part", "shoes=opaque.png", "--output", "opaque_shoes.png", workflow=tmp_path / "quick.json")
    assert done.returncode == 0 and "Shoes: all of 'opaque-" in done.stderr
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
