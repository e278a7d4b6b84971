"""Parts from pictures of any kind, and what is refused."""


import pytest
import torch
from harness.workbench import apply_pose, encode, golden_parts, run
from parts2whole.pictures.frame import fit_to_frame
from parts2whole.pictures.part import make_part


def test_a_cut_out_is_composited_on_white_and_masked_by_its_alpha():
    image = torch.zeros(1, 20, 10, 4)
    image[:, :10, :, 0] = image[:, :10, :, 3] = 1  # red above, transparent black below
    picture, mask = fit_to_frame(make_part("face", image), 16, 32)
    assert picture.shape == (1, 32, 16, 3) and mask.shape == (1, 32, 16)
    assert torch.equal(picture[0, 2, 5], torch.tensor([1.0, 0.0, 0.0])) and mask[0, 2, 5] == 1
    assert torch.equal(picture[0, -2, 5], torch.ones(3)) and mask[0, -2, 5] == 0


def test_a_picture_without_alpha_and_mask_is_used_whole():
    _, mask = fit_to_frame(make_part("face", torch.rand(1, 9, 7, 3)), 8, 8)
    assert mask.eq(1).all()


@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 3, 200, 3), (2, 64, 64, 4)])
@pytest.mark.parametrize("mask_shape", [None, (5, 3), (1, 700, 2)])
def test_pictures_and_masks_of_any_size(shape, mask_shape):
    part = make_part("face", torch.rand(shape), None if mask_shape is None else torch.ones(mask_shape))
    picture, mask = fit_to_frame(part, 24, 16)
    assert picture.shape == (shape[0], 16, 24, 3) and mask.shape == (shape[0], 16, 24)


def half_red_half_blue(width: int, height: int):
    """Red on the left, blue on the right; the mask is the blue half."""
    image = torch.zeros(1, height, width, 3)
    image[:, :, :width // 2, 0] = image[:, :, width // 2:, 2] = 1
    mask = torch.zeros(1, height, width)
    mask[:, :, width // 2:] = 1
    return make_part("face", image, mask)


def test_pad_shows_the_whole_picture_with_white_beside_it():
    picture, mask = fit_to_frame(half_red_half_blue(80, 40), 40, 40, "pad")
    assert picture[0, [0, 9, 30, 39]].eq(1).all() and mask[0, [0, 9, 30, 39]].eq(0).all()
    red, blue = torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 0.0, 1.0])
    assert picture[0, 10:30, :18].eq(red).all() and picture[0, 10:30, 22:].eq(blue).all()
    assert mask[0, 10:30, :18].eq(0).all() and mask[0, 10:30, 22:].eq(1).all()
    tall, _ = fit_to_frame(half_red_half_blue(40, 80), 40, 40, "pad")
    assert tall[0, :, [0, 9, 30, 39]].eq(1).all() and not tall[0, :, 10:30].eq(1).all(-1).any()


def test_crop_keeps_the_shape_and_has_the_part_in_its_middle_as_far_as_it_can():
    picture, mask = fit_to_frame(half_red_half_blue(80, 40), 40, 40, "crop")
    assert mask.eq(1).all() and picture.eq(torch.tensor([0.0, 0.0, 1.0])).all(), "the crop lies on the blue half"
    part = half_red_half_blue(80, 40)
    part.mask[:] = 0
    part.mask[0, 20, :10] = 1  # at the left edge: the crop stops there
    picture, _ = fit_to_frame(part, 40, 40, "crop")
    assert picture.eq(torch.tensor([1.0, 0.0, 0.0])).all()
    part.mask[0, 20, :] = 1
    picture, mask = fit_to_frame(part, 40, 40, "crop")
    assert picture[0, :, :18, 0].eq(1).all() and picture[0, :, 22:, 2].eq(1).all(), "in the middle of the picture"


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop"])
def test_a_picture_of_the_frames_shape_is_the_same_however_it_is_fitted(fit):
    image = torch.rand(1, 60, 40, 4)
    fitted, expected = (fit_to_frame(make_part("face", image), 20, 30, way) for way in (fit, "stretch"))
    assert torch.equal(fitted[0], expected[0]) and torch.equal(fitted[1], expected[1])


def test_another_way_to_fit_is_another_appearance(checkpoint):
    part = run("Parts2WholeMakePart", image=torch.rand(1, 32, 90, 3), label="shoes")
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    frame = {"parts": parts, "vae": checkpoint.vae, "width": 64, "height": 64}
    stretched, default, padded = (
        run("Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, **frame, **fit)
        for fit in ({"fit": "stretch"}, {}, {"fit": "pad"})
    )
    first, second, third = (next(iter(a.references[0].banks.values())).tokens for a in (stretched, default, padded))
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_each_picture_of_a_batch_is_a_reference(checkpoint):
    part = run("Parts2WholeMakePart", image=torch.rand(3, 32, 32, 3), label="shoes")
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    assert [reference.label for reference in encode(checkpoint, parts, 64, 64).references] == ["shoes"] * 3


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match="Part 'face': the mask of the picture is zero everywhere.*with the Invert Mask node"):
        make_part("face", torch.rand(1, 8, 8, 3), torch.zeros(1, 8, 8))
    with pytest.raises(ValueError, match="the mask of the picture 1 of the batch is zero everywhere"):
        make_part("face", torch.rand(2, 8, 8, 3), torch.stack([torch.ones(8, 8), torch.zeros(8, 8)]))
    with pytest.raises(ValueError, match="the picture is transparent everywhere.*say by a mask"):
        make_part("face", torch.zeros(1, 8, 8, 4))


@pytest.mark.parametrize("mask", [
    torch.full((1, 64, 64), 0.001), torch.nn.functional.pad(torch.ones(1, 1, 1), (478, 422, 478, 422)),
], ids=["faint", "a pixel"])
def test_a_mask_of_which_nothing_is_left_in_the_frame_is_refused(checkpoint, mask):
    part = run("Parts2WholeMakePart", image=torch.rand(1, 64, 64, 3), label="face", mask=mask)
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    with pytest.raises(ValueError, match="Part 'face': nothing is left of the mask at 128x192"):
        encode(checkpoint, parts)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    image, mask = torch.rand(1, 8, 8, 3), torch.ones(1, 8, 8)
    image[0, 3, 3, 1] = bad
    with pytest.raises(ValueError, match="Part 'face': the picture holds NaN or infinite"):
        make_part("face", image)
    mask[0, 2, 2] = bad
    with pytest.raises(ValueError, match="Part 'face': the mask holds NaN or infinite"):
        make_part("face", torch.rand(1, 8, 8, 3), mask)


@pytest.mark.parametrize("label", ["", "  "])
def test_an_empty_label_is_refused(label):
    with pytest.raises(ValueError, match="The label is empty"):
        make_part(label, torch.rand(1, 8, 8, 3))


def test_a_label_that_no_clip_reads_to_its_end_is_refused():
    with pytest.raises(ValueError, match="The label has 20000 characters.*shorten it, in the part's node, to 4096"):
        make_part("red " * 4999 + "hats", torch.rand(1, 8, 8, 3))


def test_a_label_in_a_message_is_one_short_line():
    with pytest.raises(ValueError) as error:
        make_part("a\r\nb\x1b[31m\u202e" + "long " * 99, torch.zeros(1, 8, 8, 4))
    assert r"Part 'a\r\nb\x1b[31m\u202elong long" in str(error.value) and len(str(error.value)) < 300


def test_masks_that_do_not_fit_the_batch_are_refused():
    with pytest.raises(ValueError, match=r"one for each of the 3 pictures, got a MASK of shape \[2, 8, 8\]"):
        make_part("face", torch.rand(3, 8, 8, 3), torch.ones(2, 8, 8))


def test_no_parts_are_refused(checkpoint):
    with pytest.raises(ValueError, match="got no parts: connect at least one"):
        run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={})
    with pytest.raises(ValueError, match="got none: connect at least one"):
        run("Parts2WholeCombineAppearances", appearances={})


def test_a_pose_that_is_not_finite_is_refused(checkpoint):
    with pytest.raises(ValueError, match="The pose picture holds NaN"):
        apply_pose(checkpoint.model, checkpoint.pose_guider, torch.full((1, 8, 8, 3), float("nan")))


def test_more_than_six_pictures_are_refused_by_the_image_attention(checkpoint):
    part = run("Parts2WholeMakePart", image=torch.rand(7, 8, 8, 3), label="face")
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    with pytest.raises(ValueError, match="at most 6 reference pictures, got 7"):
        run(
            "Parts2WholeApplyImageAttention", model=checkpoint.model, image_attention=checkpoint.image_attention,
            clip_vision=checkpoint.clip_vision, parts=parts, strength=1.0,
        )


def test_labels_from_another_text_encoder_are_refused(checkpoint):
    parts = tuple(part._replace(text_embedding=torch.zeros(1, 77, 768)) for part in golden_parts(checkpoint.clip, 1))
    with pytest.raises(ValueError, match="embedded with 768 channels.*expects 32"):
        encode(checkpoint, parts)
