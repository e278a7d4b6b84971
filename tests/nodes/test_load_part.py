"""Pictures of all kinds through Load Part, and where their masks come from."""

import numpy as np
import pytest
import torch
from harness.pictures import save
from harness.workbench import run
from PIL import Image


@pytest.fixture
def cut_out(folders):
    """Red on the left, transparent on the right, where the colour under the transparency is green."""
    pixels = np.zeros((10, 20, 4), np.uint8)
    pixels[:, :10] = (255, 0, 0, 255)
    pixels[:, 10:] = (0, 255, 0, 0)
    made = []

    def make(name: str) -> str:
        made.append(save(Image.fromarray(pixels), name))
        return name

    yield make
    for name in set(made):  # the next one would be taken for painted on it
        (folders / "input" / name).unlink()


def load(image, **options):
    return run("Parts2WholeLoadPart", image=image, **{"label": "face", **options})


def test_alpha(cut_out):
    part = load(cut_out("cut_out.png"))
    assert part.label == "face" and part.image.shape == (1, 10, 20, 4) and part.mask is None
    assert torch.equal(part.image, load("cut_out.png", mask_source="alpha").image)


@pytest.mark.parametrize("name, source", [("cut_out.png", "painted"), ("clipspace/clipspace-mask-1.png", "auto"),
                                          ("clipspace-painted-masked-2.png", "auto")])
def test_painted_in_the_mask_editor(cut_out, name, source):
    """The editor makes what is painted transparent, and keeps its colours."""
    part = load(cut_out(name), mask_source=source)
    assert part.image.shape[-1] == 3
    assert torch.equal(part.image[0, 0, 15], torch.tensor([0.0, 1.0, 0.0]))
    assert part.mask[0, :, 10:].eq(1).all() and part.mask[0, :, :10].eq(0).all()


def test_whole_picture(cut_out):
    part = load(cut_out("cut_out.png"), mask_source="whole picture")
    assert part.mask.eq(1).all()


def test_a_connected_mask_wins(cut_out):
    mask = torch.zeros(1, 5, 5)
    mask[0, 0, 0] = 1
    for source in ("auto", "alpha", "painted", "whole picture"):
        assert torch.equal(load(cut_out("cut_out.png"), mask_source=source, mask=mask).mask, mask)


def test_what_is_kept_is_shown_with_its_share(cut_out, folders):
    shown = _node().execute(image=cut_out("cut_out.png"), label="face").ui
    (picture,), (share,) = shown["images"], shown["parts2whole_kept"]
    assert share == 0.5 and picture["type"] == "temp"
    pixels = np.asarray(Image.open(folders / "temp" / picture["subfolder"] / picture["filename"]).convert("RGB")).astype(int)
    assert pixels.shape[1] == 640 and pixels[100, 100].tolist() == [255, 0, 0], "the red side, on a sheet of its shape"
    assert pixels[100, 500].max() < 60, "the rest is dimmed"
    whole = _node().execute(image="cut_out.png", label="face", mask_source="whole picture").ui
    assert whole["parts2whole_kept"] == (1.0,)


def test_a_picture_that_counts_whole_by_chance_is_warned_of(cut_out, caplog):
    save(Image.new("RGB", (8, 8)), "plain.png")
    load("plain.png", mask_source="whole picture")
    load("plain.png", mask=torch.ones(1, 8, 8))
    load(cut_out("cut_out.png"))
    assert not caplog.text
    load("plain.png")
    assert "all of 'plain.png' counts as the part, background too" in caplog.text


def test_nothing_painted_is_refused():
    save(Image.new("RGB", (8, 8)), "plain.png")
    with pytest.raises(ValueError, match="nothing was painted.*Open in MaskEditor"):
        load("plain.png", mask_source="painted")


def test_each_picture_and_label_is_the_one_that_was_chosen(cut_out):
    cut_out("cut_out.png")
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
    save(Image.fromarray(pixels), "gradient.png")
    part = load("gradient.png", label="shoes")
    assert part.label == "shoes"
    assert torch.equal((part.image[0] * 255).round().byte(), torch.from_numpy(pixels))
    assert torch.equal(load("cut_out.png").image[0, 0, 0], torch.tensor([1.0, 0.0, 0.0, 1.0])), "the red side"


def test_a_label_of_ones_own(cut_out):
    assert load(cut_out("cut_out.png"), custom_label="a straw hat ").label == "a straw hat"
    assert load("cut_out.png", label="handbag", custom_label=" ").label == "handbag"


def test_the_fingerprint_is_the_files_content():
    node = _node()
    save(Image.new("RGB", (4, 4)), "fingerprint.png")
    first = node.fingerprint_inputs(image="fingerprint.png", label="face")
    assert node.fingerprint_inputs(image="fingerprint.png", label="shoes") == first
    save(Image.new("RGB", (4, 4), "red"), "fingerprint.png")
    assert node.fingerprint_inputs(image="fingerprint.png", label="face") != first


def test_a_missing_file_is_refused():
    assert "Upload it" in _node().validate_inputs(image="nowhere.png", label="face")
    assert _node().validate_inputs(image=None, label=None) is True, "connected inputs are not known yet"


def _node():
    import nodes as host_nodes

    return host_nodes.NODE_CLASS_MAPPINGS["Parts2WholeLoadPart"]
