"""One server and one browser for all tests here, and a fresh page for each: make editor."""

import pytest
from harness.editor import chromium, open_editor
from harness.server import ComfyServer


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    with ComfyServer(tmp_path_factory.mktemp("editor"), "--cpu", "--use-pytorch-cross-attention") as server:
        yield server


@pytest.fixture(scope="session")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(server, browser):
    page = open_editor(browser, server.address)
    yield page
    page.close()
