"""Runs the tests inside the real ComfyUI: its modules come first on the path, and it loads the pack as it would a user's."""

import os

import pytest
from harness.host import GOLDEN, ROOT, load_core_nodes, start_host

# Here and in the servers: several threads wait for each other where cores are busy, and minutes become an hour.
os.environ["OMP_NUM_THREADS"] = "1"
start_host(cpu=os.environ.get("PARTS2WHOLE_DEVICE", "cpu") == "cpu")
load_core_nodes(
    "nodes_cfg", "nodes_differential_diffusion", "nodes_freelunch", "nodes_hooks", "nodes_hypertile", "nodes_model_advanced",
    "nodes_model_downscale", "nodes_model_merging", "nodes_pag", "nodes_perpneg", "nodes_sag", "nodes_tomesd",
)

import folder_paths  # noqa: E402
import torch  # noqa: E402
from harness.workbench import apply_image_attention, apply_parts, apply_pose, encode, golden_parts, run, sample  # noqa: E402
from parts2whole.encoders.checkpoint.load import Checkpoint  # noqa: E402

torch.set_num_threads(1)  # where a plugin has imported it before


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
    with torch.inference_mode():
        return Checkpoint(*run("Parts2WholeLoader", checkpoint="tiny"))


@pytest.fixture(scope="session")
def appearance(checkpoint):
    """Three references, encoded."""
    with torch.inference_mode():
        return encode(checkpoint, golden_parts(checkpoint.clip, 3))


@pytest.fixture(scope="session")
def parts(checkpoint):
    """Three references, labelled."""
    with torch.inference_mode():
        return golden_parts(checkpoint.clip, 3)


@pytest.fixture
def everything(checkpoint, appearance, parts):
    """A function that applies parts, pose and image attention to a MODEL."""
    return lambda model: apply_image_attention(
        apply_pose(apply_parts(model, appearance), checkpoint.pose_guider), checkpoint, parts
    )


@pytest.fixture
def draw(checkpoint):
    """A function that samples a MODEL: the final latents."""
    return lambda model, **options: sample(model, checkpoint.clip, **options)
