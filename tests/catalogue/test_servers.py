"""What a worker starts ends with it; what it downloads is a picture, from where it was told."""

import asyncio
import subprocess
import sys
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from harness.host import ROOT

from catalogue import worker
from catalogue.worker import ComfyError

PROCESS = ROOT / "catalogue" / "server_process.py"


def test_a_server_ends_with_whoever_started_it_and_takes_its_folder_along(tmp_path):
    """Also where that one is killed and can say nothing."""
    (tmp_path / "program" / "main.py").parent.mkdir()
    (tmp_path / "program" / "main.py").write_text("import sys, time\nprint(__name__, sys.argv[1:], flush=True)\ntime.sleep(600)\n")
    (tmp_path / "folder").mkdir()
    starter = "import subprocess, sys; subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE).wait()"
    process = subprocess.Popen(
        [sys.executable, "-c", starter, PROCESS, tmp_path / "folder", tmp_path / "program" / "main.py", "-x"],
        stdout=subprocess.PIPE, text=True,
    )
    assert process.stdout.readline() == "__main__ ['-x']\n"
    process.kill()
    assert process.stdout.read() == "", "the pipe ends when the server does"
    deadline = time.monotonic() + 10
    while (tmp_path / "folder").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def download(*routes):
    async def go():
        app = web.Application()
        for path, answer in routes:
            async def handle(request, answer=answer):
                return answer

            app.router.add_get(path, handle)
        async with TestServer(app) as server:
            return await worker._download(str(server.make_url(routes[0][0])))

    return asyncio.run(go())


def test_a_picture_is_fetched():
    assert download(("/a.png", web.Response(body=b"png", content_type="image/png"))) == b"png"


@pytest.mark.parametrize("answer, words", [
    (web.Response(status=302, headers={"Location": "/b.png"}), "answers 302"),
    (web.Response(text="<html>"), "text/plain: no picture"),
    (web.Response(status=404), "answers 404"),
    (web.Response(body=b"x" * 2000, content_type="image/png"), "sends more than 1000 bytes"),
])
def test_what_is_no_picture_is_not(monkeypatch, answer, words):
    monkeypatch.setattr(worker, "LARGEST_PICTURE", 1000)
    with pytest.raises(ComfyError, match=words):
        download(("/a.png", answer), ("/b.png", web.Response(body=b"png", content_type="image/png")))
