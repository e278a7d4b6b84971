"""One server for all tests here: to start it takes longer than most of them."""

import shutil

import numpy as np
import pytest
from harness.dolls import API, draw
from harness.host import GOLDEN
from harness.published import publish
from harness.server import ComfyServer

from training.paper_dolls.examples import FIGURE, SEED
from training.paper_dolls.pairs import Pair


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """The real server with the pack as the registry has it, the tiny checkpoint beside the pack's own and its pictures beside
    the examples, and a folder from extra_model_paths.yaml."""
    base, elsewhere = tmp_path_factory.mktemp("server"), tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "p2w" / "huanngzh").mkdir(parents=True)
    (elsewhere / "p2w" / "huanngzh" / "Parts2Whole").symlink_to(GOLDEN / "checkpoint")
    (elsewhere / "paths.yaml").write_text(f"mine:\n  base_path: {elsewhere}\n  parts2whole: p2w\n")
    publish(base / "custom_nodes" / "comfyui-parts2whole")
    server = ComfyServer(
        base, "--cpu", "--use-pytorch-cross-attention", "--extra-model-paths-config", str(elsewhere / "paths.yaml")
    )
    (base / "models" / "parts2whole" / "tiny").symlink_to(GOLDEN / "checkpoint")
    for picture in (GOLDEN / "images").iterdir():
        shutil.copy(picture, base / "input")
    with server:
        yield server


@pytest.fixture(scope="session")
def doll(server) -> np.ndarray:
    """What the first workflow draws."""
    return draw(server, API)


@pytest.fixture(scope="session")
def true() -> Pair:
    """The figure that the parts of the first workflow are from."""
    return Pair(SEED, FIGURE)
