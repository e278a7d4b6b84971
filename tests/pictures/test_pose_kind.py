"""Kinds of pose pictures, told apart and converted."""

import re

import pytest
import torch
from harness.memory import MIB, most_memory
from harness.workbench import apply_pose, run
from parts2whole.pictures.pose_kind import COLOUR_MAPPED, IUV, OPENPOSE, OTHER, VIRIDIS, pose_kind

from training.paper_dolls.pairs import Pair


def iuv():
    return torch.from_numpy(Pair(5, 0).pose.copy()).float()[None] / 255


def colour_mapped(image):
    index = (image[..., 2] * 255).round().long()
    return torch.tensor(VIRIDIS)[index] / 255.0


def openpose():
    image = torch.zeros(1, 192, 128, 3)
    for i, colour in enumerate(((255, 0, 0), (255, 170, 0), (0, 255, 85), (0, 85, 255), (170, 0, 255))):
        image[0, 30 + 20 * i:45 + 20 * i, 60:68] = torch.tensor(colour) / 255
    return image


def test_kinds():
    assert pose_kind(iuv()) == IUV
    assert pose_kind(colour_mapped(iuv())) == COLOUR_MAPPED
    assert pose_kind(openpose()) == OPENPOSE
    assert pose_kind(torch.rand(1, 64, 64, 3)) == OTHER


def test_pictures_in_half_precision():
    """As the host loads them with --fp16-intermediates."""
    for kind, image in ((IUV, iuv()), (COLOUR_MAPPED, colour_mapped(iuv())), (OPENPOSE, openpose())):
        assert pose_kind(image.half()) == kind
    mapped = colour_mapped(iuv())
    assert torch.equal(run("Parts2WholePoseToIUV", image=mapped.half()), run("Parts2WholePoseToIUV", image=mapped))


def test_viridis_is_matplotlibs():
    import matplotlib

    colours = matplotlib.colormaps["viridis"]
    assert [tuple(round(255 * c) for c in colours(int(i * 255 / 25))[:3]) for i in range(25)] == list(VIRIDIS)


def test_the_part_index_comes_back_and_u_and_v_do_not():
    image = iuv()
    converted = run("Parts2WholePoseToIUV", image=colour_mapped(image))
    assert torch.equal((converted[..., 2] * 255).round(), (image[..., 2] * 255).round())
    body = image[..., 2] > 0
    assert converted[..., :2][body].eq(0.5).all() and converted[..., :2][~body].eq(0).all()
    assert pose_kind(converted) == IUV
    assert torch.equal(run("Parts2WholePoseToIUV", image=image), image)


def test_it_forgives_what_jpeg_does_to_colours():
    image = colour_mapped(iuv())
    noisy = (image + 2.5 / 255 * torch.randn(image.shape, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)).clamp(0, 1)
    converted = run("Parts2WholePoseToIUV", image=noisy)
    wrong = ((converted[..., 2] - iuv()[..., 2]) * 255).abs().round() > 1
    assert wrong.float().mean() < 0.01


def test_pictures_that_cannot_be_converted():
    with pytest.raises(ValueError, match="The picture is OpenPose. Expected DensePose in the colours of viridis"):
        run("Parts2WholePoseToIUV", image=openpose())


@pytest.mark.parametrize(
    "image, words", [(openpose, "OpenPose"), (lambda: colour_mapped(iuv()), "colour-mapped.*DensePose to IUV")]
)
def test_the_pose_guider_says_what_it_got(checkpoint, caplog, image, words):
    apply_pose(checkpoint.model, checkpoint.pose_guider, image())
    assert re.search(f"the pose picture is {words}", caplog.text)


def test_a_pose_without_a_body_is_said_by_its_number(checkpoint, caplog):
    apply_pose(checkpoint.model, checkpoint.pose_guider, iuv())
    assert not caplog.text
    apply_pose(checkpoint.model, checkpoint.pose_guider, torch.zeros(1, 8, 8, 3))
    assert "the pose picture shows no body" in caplog.text
    apply_pose(checkpoint.model, checkpoint.pose_guider, torch.cat([iuv(), torch.zeros_like(iuv())]))
    assert "the pose picture 1 of the batch shows no body" in caplog.text


def test_a_large_pose_takes_memory_for_itself_only():
    image = torch.rand(1, 2000, 2000, 3)
    assert most_memory(lambda: pose_kind(image)) < 350 * MIB
