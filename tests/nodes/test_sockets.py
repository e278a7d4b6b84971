"""Whatever comes in by a socket is checked before a node's own work, since over the API anything may."""

import sys

import pytest
import torch
from harness.workbench import run

PACK = sys.modules["parts2whole"]


def sockets() -> list[tuple[str, str]]:
    from comfy_api.latest import io

    found = []
    for name, node in sorted(vars(PACK).items()):
        if isinstance(node, type) and issubclass(node, io.ComfyNode):
            found += [(name, each.id) for each in node.GET_SCHEMA().inputs if not isinstance(each, io.WidgetInput)]
    return found


def test_every_node_has_its_sockets_checked():
    assert len(sockets()) > 40 and ("Parts2WholeApply", "appearance") in sockets()


@pytest.mark.parametrize("value", [True, 1e9, "x" * 20_000, {"a": 1}, ["1", 0, 2]], ids=["bool", "float", "text", "dict", "list"])
@pytest.mark.parametrize("node, socket", sockets())
def test_a_plain_value_is_refused_with_words(node, socket, value):
    with pytest.raises(ValueError, match="Connect the output of a node that gives") as refused:
        run(node, **{socket: value})
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize("node, socket", [
    ("Parts2WholeEncodeAppearance", "vae"), ("Parts2WholeEncodeLabels", "clip"), ("Parts2WholeApplyImageAttention", "clip_vision"),
])
def test_a_checkpoint_without_it_is_told(node, socket):
    with pytest.raises(ValueError, match=f"got nothing: the node that is connected has none to give for '{socket}'"):
        run(node, **{socket: None})


def test_an_unknown_input_is_told_with_those_that_there_are():
    with pytest.raises(ValueError, match="Apply Pose Guider has no input 'pose': its inputs are model, pose_guider, image"):
        run("Parts2WholeApplyPose", pose=torch.zeros(1, 8, 8, 3))


def test_what_is_optional_may_be_left_out():
    assert run("Parts2WholeMakePart", image=torch.ones(1, 8, 8, 3), label="face", mask=None).mask is None


@pytest.mark.parametrize("node, socket, value", [
    ("Parts2WholeShowAttribution", "latent", {}), ("Parts2WholeEncodeAppearance", "parts", ("face", 1)),
    ("Parts2WholePreviewParts", "parts", (torch.zeros(1),)), ("Parts2WholeApply", "levels", ("1", "2")),
    ("Parts2WholeOutfitGrid", "rows", [(1,)]), ("Parts2WholeEncodeLabels", "parts", {"part0": ()}),
])
def test_what_is_of_the_right_shape_with_something_else_in_it_is_refused(node, socket, value):
    with pytest.raises(ValueError, match=f"for '{socket.removesuffix('s') if node == 'Parts2WholeEncodeLabels' else socket}'"):
        run(node, **{socket: value})


@pytest.mark.parametrize("value", [True, 1e9, -1, {"a": 1}, None], ids=["bool", "float", "int", "dict", "none"])
@pytest.mark.parametrize("node, text", [
    ("Parts2WholeLoadPart", "label"), ("Parts2WholeLoadPart", "custom_label"),
    ("Parts2WholeMakePart", "label"), ("Parts2WholeSaveAppearance", "filename_prefix"),
])
def test_what_is_no_text_is_refused_with_words(node, text, value):
    with pytest.raises(ValueError, match=f"for '{text}'. Give it a text"):
        run(node, **{text: value})


@pytest.mark.parametrize("shape", [(1, 8, 8, 1), (1, 8, 8, 2), (1, 8, 8, 5), (0, 8, 8, 3), (1, 0, 8, 3)], ids=str)
@pytest.mark.parametrize("node", [
    "Parts2WholeCropForDetail", "Parts2WholeCropBox", "Parts2WholePoseFromPhoto", "Parts2WholeApplyPose", "Parts2WholePoseRegion",
])
def test_a_tensor_that_is_no_picture_is_refused_with_words(node, shape):
    """One channel would go on as a picture without a dimension for it."""
    with pytest.raises(ValueError, match=r"a tensor of shape \[.*\] for 'image'.* one picture or more of shape \[B, H, W, 3 or 4"):
        run(node, image=torch.zeros(shape))


@pytest.mark.parametrize("node, number, value", [
    ("Parts2WholeCropForDetail", "factor", 0.0), ("Parts2WholeCropForDetail", "padding", -1), ("Parts2WholeCropBox", "x", 1.5),
    ("Parts2WholePasteDetail", "feather", -1), ("Parts2WholePeople", "width", 0), ("Parts2WholePeople", "grow", float("nan")),
    ("Parts2WholeApply", "strength", float("nan")), ("Parts2WholeApply", "strength", float("inf")),
    ("Parts2WholeApply", "start_percent", "0"), ("Parts2WholePoseFromPhoto", "person", True),
    ("Parts2WholePoseFromPhoto", "person", None),
])
def test_a_number_that_comes_by_a_link_has_its_limits_too(node, number, value):
    with pytest.raises(ValueError, match=rf"for '{number}'. Give it a (whole )?number from -?[\d.]+ to [\d.]+\.$"):
        run(node, **{number: value})


def test_every_number_has_limits():
    from comfy_api.latest import io

    for node in (node for node in vars(PACK).values() if isinstance(node, type) and issubclass(node, io.ComfyNode)):
        for each in node.GET_SCHEMA().inputs:
            assert not isinstance(each, (io.Int.Input, io.Float.Input)) or each.min < each.max, (node, each.id)
