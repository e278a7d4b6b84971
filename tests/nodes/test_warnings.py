"""Warnings stand on the node that runs and in the log, once in a run."""

import torch
from comfy_execution.utils import CurrentNodeContext
from harness.host import our_nodes
from harness.workbench import picture
from parts2whole.attention.patch.host.warnings import warn

LONG = "very " * 80 + "long"


def part(label):
    return our_nodes()["Parts2WholeMakePart"].execute(image=picture("ref_0"), label=label, mask=None)[0]


def embed(clip, *labels):
    parts = {f"part{i}": label and part(label) for i, label in enumerate(labels)}
    return our_nodes()["Parts2WholeEncodeLabels"].execute(clip=clip, parts=parts)


def test_a_node_gives_its_warnings_with_its_output_and_the_log_has_them_once(checkpoint, caplog):
    with CurrentNodeContext("one prompt", "5"):
        first = embed(checkpoint.clip, LONG, LONG, "shoes")
        second = embed(checkpoint.clip, LONG)  # of a list: the host keeps what both show
    (text,) = first.ui["parts2whole_warnings"]
    assert "longer than 77 tokens" in text and caplog.text.count("longer than 77 tokens") == 1
    assert second.ui == first.ui
    with CurrentNodeContext("one prompt", "6"):
        assert embed(checkpoint.clip, "shoes").ui is None
        embed(checkpoint.clip, LONG)
    with CurrentNodeContext("another prompt", "5"):
        assert embed(checkpoint.clip, "shoes").ui is None, "what was said in another run is gone"
        embed(checkpoint.clip, LONG)
    assert caplog.text.count("longer than 77 tokens") == 3


def test_outside_of_a_run_the_log_says_it(caplog):
    warn("the moon is full.")
    assert "Parts2Whole: the moon is full." in caplog.text


def test_a_slot_whose_node_found_no_part_is_named(checkpoint, caplog):
    embed(checkpoint.clip, "face", None, "shoes", None)
    assert "no part came to part1, part3, and the picture is made without" in caplog.text
    caplog.clear()
    embed(checkpoint.clip, "face", "shoes")
    assert "Parts2Whole" not in caplog.text


def test_a_small_model_tells_the_size_that_it_was_made_for(caplog):
    from harness.workbench import apply_pose, noise, run, sample

    model, clip, *_, guider, _ = run("Parts2WholeLoader", checkpoint="paper_doll")
    posed = apply_pose(model, guider, torch.full((1, 8, 8, 3), 2 / 255))
    for height, width, said in ((48, 32, 0), (48, 48, 1)):
        caplog.clear()
        sample(posed, clip, noise(height, width))
        assert caplog.text.count(f"made for pictures of 256x384, and these are {8 * width}x{8 * height}") == said
        assert caplog.text.count("made for pictures") == said
    image, box = torch.rand(1, 384, 256, 3), dict(x=80, y=40, width=96, height=96)
    detail, *_ = run("Parts2WholeCropForDetail", model=posed, image=image, factor=2.0, padding=0.0, **box)
    caplog.clear()
    sample(detail, clip, noise(12, 12))
    assert not caplog.text.count("made for pictures"), "a crop is meant to have another size"


def test_a_model_of_another_loader_has_no_such_size_and_the_host_is_not_asked_for_it(caplog):
    """The host's configurations warn of names that they do not have."""
    import comfy.supported_models
    from parts2whole.attention.patch.host.unet import trained_size

    class Model:
        model_config = comfy.supported_models.SD15({})

    class Patcher:
        model = Model

    assert trained_size(Patcher) is None and not caplog.text
    assert Model.model_config.no_such_name is None and "no_such_name" in caplog.text
