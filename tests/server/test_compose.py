"""compose.py and its client with servers that mean it ill. With the real one: test_paper_doll.py."""

import asyncio
import gzip
import json
import sys
import uuid
from contextlib import asynccontextmanager, suppress

import pytest
from aiohttp import web
from harness.host import ROOT

API = ROOT / "workflows" / "api"
sys.path.append(str(API))

import comfy_answers  # noqa: E402
import comfy_client  # noqa: E402
import compose  # noqa: E402

ID, FACE = str(uuid.uuid4()), ROOT / "workflows" / "input" / "doll_face.png"
PNG, PART = FACE.read_bytes(), ("--part", f"face={FACE}")
PLACE = {"filename": "doll.png", "subfolder": "", "type": "output"}
WORKFLOW = API / "paper_doll.json"
ESCAPE = "\x1b]0;mine\x07\x9b2J\u202e"


def history(*places, status="success", messages=()):
    entry = {"outputs": {"18": {"images": places}}, "status": {"status_str": status, "messages": messages}}
    return lambda request: web.json_response({ID: entry})


def says(text, **options):
    return lambda request: web.Response(text=text, **{"content_type": "application/json", **options})


def websocket(*messages, close=True):
    async def answer(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        for message in messages:
            await socket.send_str(message if isinstance(message, str) else json.dumps(message))
        if not close:
            await socket.receive()
        return socket

    return answer


def event(kind, **data):
    return {"type": kind, "data": {"prompt_id": ID, **data}}


@asynccontextmanager
async def serve(routes):
    app = web.Application()
    for path, handler in routes.items():
        async def answer(request, handler=handler):
            with suppress(ConnectionError):  # we hung up
                result = handler(request)
                return await result if asyncio.iscoroutine(result) else result

        app.router.add_route("*", path, answer)
    runner = web.AppRunner(app, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield "http://{}:{}".format(*runner.addresses[0][:2])
    finally:
        await runner.cleanup()


@pytest.fixture
def run(tmp_path, monkeypatch):
    """compose.py with a server that answers as ComfyUI but for these routes. Returns what it says when it fails, else None."""
    monkeypatch.chdir(tmp_path)

    def run(*options, **routes):
        async def go():
            own = {
                "upload/image": says('{"name": "face.png", "subfolder": ""}'),
                "prompt": says(json.dumps({"prompt_id": ID, "node_errors": {}})),
                "ws": websocket(event("execution_success")),
                "history": history(PLACE),
                "queue": says('{"queue_running": [], "queue_pending": []}'),
                "view": lambda request: web.Response(body=PNG, content_type="image/png"),
                **routes,
            }
            own[f"history/{ID}"] = own.pop("history")
            async with serve({f"/{path}": handler for path, handler in own.items()}) as address:
                try:
                    await compose.main([str(WORKFLOW), "--server", address, "--output", "out.png", *options])
                except SystemExit as end:
                    return str(end)

        return asyncio.run(asyncio.wait_for(go(), 20))

    return run


def written(tmp_path):
    return sorted(path.name for path in tmp_path.iterdir())


def test_a_server_that_means_well(run, tmp_path):
    second = {**PLACE, "type": "temp", "filename": "sheet.png"}
    assert run(history=history(second, PLACE)) is None
    assert written(tmp_path) == ["out.png", "out_2.png"] and (tmp_path / "out.png").read_bytes() == PNG


@pytest.mark.parametrize("path", ["upload/image", "ws", "prompt", "history", "view"])
@pytest.mark.parametrize("status", [302, 307])
def test_no_redirect_is_followed(run, tmp_path, path, status):
    """Neither prompt nor picture nor header goes to another server."""
    asked = []

    async def go():
        async with serve({"/{any:.*}": asked.append}) as address:
            redirect = lambda request: web.Response(status=status, headers={"Location": f"{address}/{path}"})  # noqa: E731
            return await asyncio.to_thread(run, *PART, **{path: redirect})

    assert "redirects to" in asyncio.run(go())
    assert not asked and not written(tmp_path)


@pytest.mark.parametrize("view, words", [
    (lambda request: web.Response(status=404, text="not found"), "answers 404"),
    (lambda request: web.Response(text="<html>Log in</html>", content_type="text/html"), "text/html for the picture doll"),
    (lambda request: web.Response(status=206, body=PNG[:9], content_type="image/png"), "answers 206"),
])
def test_what_is_no_picture_is_not_written(run, tmp_path, view, words):
    assert words in run(view=view) and not written(tmp_path)


def test_a_picture_that_breaks_off_is_not_written(run, tmp_path):
    async def view(request):
        response = web.StreamResponse(headers={"Content-Type": "image/png", "Content-Length": str(len(PNG))})
        await response.prepare(request)
        await response.write(PNG[:100])
        request.transport.close()
        return response

    (tmp_path / "out.png").write_bytes(b"older")
    assert "broke off /view" in run(view=view)
    assert written(tmp_path) == ["out.png"] and (tmp_path / "out.png").read_bytes() == b"older"


@pytest.mark.parametrize("ws", [
    websocket(), websocket(event("progress", value=1, max=2)), websocket("x" * 2000, close=False),
    lambda request: web.Response(status=403),
])
def test_without_a_websocket_the_history_tells_how_it_ended(run, tmp_path, monkeypatch, ws):
    monkeypatch.setattr(comfy_client, "LARGEST_MESSAGE", 1000)
    asked = []

    def slow(request):
        asked.append(request)
        return history(PLACE)(request) if len(asked) > 3 else web.json_response({})

    waiting = says(json.dumps({"queue_running": [], "queue_pending": [[1, ID, {}, {}, []]]}))
    assert run(ws=ws, history=slow, queue=waiting) is None and written(tmp_path) == ["out.png"]
    failed = ("execution_error", {"node_type": "KSampler", "exception_message": "too hot"})
    assert "KSampler: too hot" in run(ws=ws, history=history(status="error", messages=[failed]))
    assert "interrupted" in run(ws=ws, history=history(PLACE, status="error", messages=[("execution_interrupted", {})]))
    assert "knows nothing of this run" in run(ws=ws, history=says("{}"))


def test_a_server_that_goes_away_is_an_error_after_a_while(tmp_path):
    async def go():
        routes = {"/ws": websocket(), "/prompt": says(json.dumps({"prompt_id": ID}))}
        routes[f"/history/{ID}"] = lambda request: request.transport.close()
        async with serve(routes) as address, comfy_client.Comfy(address, patience=0.3) as comfy:
            await comfy.run({})

    with pytest.raises(comfy_answers.ServerGone, match="broke off /history"):
        asyncio.run(go())


def test_a_run_without_a_picture_is_an_error(run, tmp_path):
    assert "drew no picture" in run(history=history()) and not written(tmp_path)


def test_what_a_server_sends_is_limited(run, tmp_path, monkeypatch):
    async def endless(request):
        response = web.StreamResponse(headers={"Content-Type": request.query.get("type") and "image/png" or "application/json"})
        await response.prepare(request)
        while True:
            await response.write(b" " * 2**16)

    monkeypatch.setattr(compose, "MOST_BYTES", 2**20)
    monkeypatch.setattr(comfy_answers, "LARGEST_ANSWER", 2**20)
    assert "sends more than 1048576 bytes" in run(view=endless)
    assert "sends more than 1048576 bytes" in run(prompt=endless)
    assert "sends more than 1048576 bytes" in run(history=endless)
    assert "offers 1001 pictures" in run(history=history(*[PLACE] * 1001))
    packed = gzip.compress(json.dumps({"prompt_id": ID, "x": "0" * 10**7}).encode())
    assert "no ComfyUI" in run(prompt=lambda request: web.Response(body=packed, headers={"Content-Encoding": "gzip"}))
    assert not written(tmp_path)
    monkeypatch.setattr(compose, "MOST_BYTES", len(PNG) + 10)
    assert "sends more than 10 bytes" in run(history=history(PLACE, PLACE)), "together"
    assert written(tmp_path) == ["out.png"]


def test_a_server_that_never_stops_talking_is_not_listened_to(run, tmp_path, monkeypatch):
    async def chatter(request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        while not socket.closed:
            await socket.send_json(event("progress", value=1, max=2))

    monkeypatch.setattr(comfy_client, "MOST_MESSAGES", 500)
    assert run(ws=chatter) is None and written(tmp_path) == ["out.png"]


def test_a_servers_words_cannot_steer_a_terminal(run, capsys):
    talk = event("progress", value=ESCAPE, max=[ESCAPE]), event("executing", node=ESCAPE), event("execution_success")
    said = [
        run(ws=websocket(*talk)),
        run(history=history(messages=[("execution_error", {"node_type": ESCAPE, "exception_message": ESCAPE})])),
        run(prompt=says(json.dumps({"error": {"message": ESCAPE, "details": "x" * 10**6}}), status=400)),
        run(prompt=says(json.dumps({"node_errors": {"1": {"errors": [{"message": ESCAPE, "details": ESCAPE}]}}, "prompt_id": ID}))),
        run(history=history({**PLACE, "filename": ESCAPE}), view=says("", content_type="text/x")),
    ]
    shown = "".join(capsys.readouterr()) + "".join(filter(None, said))
    assert "\\x1b]0;mine" in shown and "leaves these out" in shown and "of ['\\x1b" in shown.replace("\\\\", "\\")
    assert all(c.isprintable() or c == "\n" for c in shown) and len(shown) < 10_000


@pytest.mark.parametrize("path", ["upload/image", "prompt", "history", "ws"])
@pytest.mark.parametrize("answer", [
    "", "<html>", "null", "[1]", "5", '"x"', '{"prompt_id": 5}', "[" * 100_000, '{"name": {}}', json.dumps({ID: 5}),
    json.dumps({ID: {"outputs": [], "status": None}}), json.dumps({ID: {"status": {"status_str": "success", "messages": [5]}}}),
    json.dumps({ID: {"status": {"status_str": "success", "messages": []}, "outputs": {"1": {"images": [None]}}}}),
])
def test_a_server_that_is_no_comfyui(run, tmp_path, path, answer):
    """Ends with a sentence; a websocket's nonsense may also be passed over."""
    route = websocket(answer) if path == "ws" else says(answer)
    said = run(*PART, **{path: route})
    assert "no ComfyUI" in said or "knows nothing" in said if path != "ws" else said is None or "no ComfyUI" in said
    assert path == "ws" or not written(tmp_path)


@pytest.mark.parametrize("server", ["ftp://host", "http://", "http://host/?a=b", "http://host/#a"])
def test_addresses_that_cannot_be(run, server, capsys):
    assert run("--server", server) == "2" and f"'{server}' is not the address of a server" in capsys.readouterr().err


@pytest.mark.parametrize("header", ["Authorization", ": x", "A: b\nC: d"])
def test_headers_that_cannot_be(run, header, capsys):
    assert run("--header", header) == "2" and "a header is NAME: VALUE" in capsys.readouterr().err
