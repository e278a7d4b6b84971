"""Runs the tests inside the real ComfyUI: its modules come first on the path, and it loads the pack as it would a user's."""

import asyncio
import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden"
HOST = Path(os.environ["COMFYUI_PATH"])

sys.path.insert(0, str(HOST))
sys.path.insert(1, str(ROOT / "tests"))
sys.path.insert(2, str(ROOT))

import comfy.cli_args  # noqa: E402

comfy.cli_args.args.cpu = os.environ.get("PARTS2WHOLE_DEVICE", "cpu") == "cpu"

import folder_paths  # noqa: E402
import torch  # noqa: E402
import utils.extra_config  # noqa: E402, F401  first, as in main.py: nodes.py puts comfy/ in front, where another `utils` lies

import nodes as host_nodes  # noqa: E402  isort: skip

torch.set_num_threads(1)  # several threads wait for each other where cores are busy: minutes become an hour


def load_pack():
    """Loads the pack through the host's own loader and returns its package."""
    assert asyncio.run(host_nodes.load_custom_node(str(ROOT), module_parent="custom_nodes"))
    return sys.modules[str(ROOT).replace(".", "_x_")]  # the host's name for it


def load_core_nodes(*modules: str):
    for module in modules:
        assert asyncio.run(host_nodes.load_custom_node(str(HOST / "comfy_extras" / f"{module}.py"), module_parent="comfy_extras"))


examples = tempfile.TemporaryDirectory()  # the pack puts its example pictures there
folder_paths.set_input_directory(examples.name)
PACK = load_pack()
load_core_nodes(
    "nodes_cfg", "nodes_custom_sampler", "nodes_freelunch", "nodes_hooks", "nodes_hypertile",
    "nodes_model_advanced", "nodes_model_downscale", "nodes_model_merging", "nodes_pag", "nodes_perpneg", "nodes_sag",
    "nodes_tomesd",
)
# So that tests can import the pack's modules by a name of their own.
sys.modules["parts2whole"] = PACK
for name in [name for name in sys.modules if name.startswith(PACK.__name__ + ".")]:
    sys.modules["parts2whole" + name.removeprefix(PACK.__name__)] = sys.modules[name]


@pytest.fixture(autouse=True)
def inference_mode():
    """The host executes nodes in inference mode."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="session", autouse=True)
def folders(tmp_path_factory):
    """The host's folders, empty but for the tiny checkpoint and the pack's own."""
    base = tmp_path_factory.mktemp("comfyui")
    for name in ("input", "output", "temp", "models/parts2whole", "models/diffusers"):
        (base / name).mkdir(parents=True)
    folder_paths.set_input_directory(str(base / "input"))
    folder_paths.set_output_directory(str(base / "output"))
    folder_paths.set_temp_directory(str(base / "temp"))
    folder_paths.folder_names_and_paths["parts2whole"] = ([str(base / "models" / "parts2whole"), str(ROOT / "models")], set())
    folder_paths.folder_names_and_paths["diffusers"] = ([str(base / "models" / "diffusers")], set())
    (base / "models" / "parts2whole" / "tiny").symlink_to(GOLDEN / "checkpoint")
    return base


@pytest.fixture(scope="session")
def checkpoint(folders):
    """The tiny checkpoint, as Load Parts2Whole gives it."""
    from harness.workbench import run
    from parts2whole.encoders.checkpoint.load import Checkpoint

    with torch.inference_mode():
        return Checkpoint(*run("Parts2WholeLoader", checkpoint="tiny"))


@pytest.fixture(scope="session")
def appearance(checkpoint):
    """Three references, encoded."""
    from harness.workbench import encode, golden_parts

    with torch.inference_mode():
        return encode(checkpoint, golden_parts(checkpoint.clip, 3))


@pytest.fixture(scope="session")
def parts(checkpoint):
    """Three references, labelled."""
    from harness.workbench import golden_parts

    with torch.inference_mode():
        return golden_parts(checkpoint.clip, 3)


@pytest.fixture
def everything(checkpoint, appearance, parts):
    """A function that applies parts, pose and image attention to a MODEL."""
    from harness.workbench import apply_image_attention, apply_parts, apply_pose

    return lambda model: apply_image_attention(
        apply_pose(apply_parts(model, appearance), checkpoint.pose_guider), checkpoint, parts
    )


@pytest.fixture
def draw(checkpoint):
    """A function that samples a MODEL: the final latents."""
    from harness.workbench import sample

    return lambda model, **options: sample(model, checkpoint.clip, **options)
