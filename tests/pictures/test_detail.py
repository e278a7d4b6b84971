"""Crops that are enlarged, and pasted back."""

from fractions import Fraction

import pytest
import torch
from harness.workbench import run
from parts2whole.pictures.crop import WHOLE, Box, Crop, crop_box, cut, lanczos_of, means_of

SIZE = 130, 190  # neither side is a multiple of 8


def image(batch=1, channels=3, size=SIZE, seed=0):
    return torch.rand(batch, size[1], size[0], channels, generator=torch.Generator().manual_seed(seed))


def mask_of(left, top, right, bottom, size=SIZE):
    mask = torch.zeros(1, size[1], size[0])
    mask[:, top:bottom, left:right] = 1
    return mask


def crop(image, model, factor=2.0, padding=0.0, box=(0, 0, 0, 0), **mask):
    x, y, width, height = box
    _, detail, mask, crop = run(
        "Parts2WholeCropForDetail", model=model, image=image, factor=factor, padding=padding, x=x, y=y, width=width, height=height,
        **mask,
    )
    return detail, mask, crop


def paste(image, detail, crop, feather=0, **mask):
    return run("Parts2WholePasteDetail", image=image, detail=detail, crop=crop, feather=feather, **mask)


@pytest.fixture
def model(checkpoint):
    return checkpoint.model


def test_a_place_in_a_crop_is_a_place_in_the_whole():
    outer, inner = Crop(10, 20, 40, 60, 100, 100).box, Crop(5, 15, 20, 30, 80, 120).box
    assert inner.within(outer) == Crop(25, 55, 20, 30, 200, 200).box, "a quarter of the crop is a tenth of the whole"
    assert outer.within(WHOLE) == outer == WHOLE.within(outer)
    third = Box(Fraction(1, 3), 0, Fraction(2, 3), 1)
    assert third.within(third.within(third)) == Box(Fraction(13, 27), 0, Fraction(14, 27), 1), "without rounding"


def test_a_box_along_the_edges_of_pixels_is_cut_as_by_hand():
    picture = image(2)
    piece, rest = cut(picture, Crop(10, 20, 30, 40, *SIZE).box)
    assert torch.equal(piece, picture[:, 20:60, 10:40]) and rest == WHOLE
    piece, rest = cut(picture, Crop(1, 1, 1, 1, 3, 3).box)
    assert piece.shape == (2, 64, 44, 3), "the pixels that it touches"
    touched = Box(Fraction(43, 130), Fraction(63, 190), Fraction(87, 130), Fraction(127, 190))
    assert rest.within(touched) == Crop(1, 1, 1, 1, 3, 3).box


@pytest.mark.parametrize("resized, atol", [(lanczos_of, 0.007), (means_of, 0.02)])
def test_the_rest_of_a_box_is_taken_from_between_the_pixels(resized, atol):
    """A slope stays a slope, and its ends are where the box ends."""
    slope = ((torch.arange(12) + 0.5) / 12).expand(1, 4, 12)
    got = resized(slope, Box(0.125, 0, 0.875, 1), 8, 2)  # 9 pixels from 1.5 on, in 8
    assert got.shape == (1, 2, 8) and torch.allclose(got[0, 0], (1.5 + (torch.arange(8) + 0.5) * 9 / 8) / 12, atol=atol)


def test_a_mean_is_that_of_what_a_place_covers():
    mask = torch.zeros(1, 2, 6)
    mask[..., 2] = 1
    assert torch.allclose(means_of(mask, Box(0.25, 0, 0.75, 1), 2, 1), torch.tensor([[[2 / 3, 0.0]]]), atol=1e-6)
    assert torch.equal(means_of(mask, Box(0.25, 0, 0.75, 1), 3, 1), torch.tensor([[[0.5, 0.5, 0.0]]]))
    assert means_of(torch.ones(1, 7, 5), Box(0.1, 0.3, 0.7, 0.9), 64, 48).sub(1).abs().max() < 1e-6


def test_the_whole_picture_is_a_crop_that_changes_nothing(model):
    picture = image(2, size=(128, 192))
    detail, mask, box = crop(picture, model, factor=1.0)
    assert torch.equal(detail, picture) and box == Crop(0, 0, 128, 192, 128, 192) and mask.eq(1).all()
    assert torch.equal(paste(picture, detail, box, feather=20), picture)


@pytest.mark.parametrize("factor", [0.5, 1.0, 1.5, 2.0, 3.25])
@pytest.mark.parametrize("at", [(60, 90, 71, 103), (0, 0, 1, 1), (129, 189, 130, 190), (0, 0, 130, 190)])
def test_a_crop_lies_in_the_picture_and_has_sides_for_latents(model, factor, at):
    detail, mask, box = crop(image(), model, factor, 0.3, mask=mask_of(*at))
    assert box.x <= at[0] and box.y <= at[1] and box.x + box.width >= at[2] and box.y + box.height >= at[3], "the mask is in it"
    assert box.x >= 0 and box.y >= 0 and box.x + box.width <= SIZE[0] and box.y + box.height <= SIZE[1]
    assert detail.shape[1] % 8 == detail.shape[2] % 8 == 0 and mask.shape[1:] == detail.shape[1:3]
    for shown, side in ((detail.shape[2], box.width), (detail.shape[1], box.height)):
        assert abs(shown - side * factor) <= max(4, factor), "hardly stretched"


def test_padding_is_a_share_of_the_longer_side(model):
    _, _, box = crop(image(size=(512, 512)), model, 2.0, 0.25, mask=mask_of(200, 200, 240, 280, (512, 512)))
    assert box == Crop(180, 180, 80, 120, 512, 512)


def test_the_box_is_that_of_all_masks_of_any_size(model):
    masks = torch.cat([mask_of(10, 10, 12, 14, (65, 95)), mask_of(20, 30, 21, 31, (65, 95))])
    _, mask, box = crop(image(), model, mask=masks)
    assert box == Crop(19, 19, 24, 44, *SIZE), "20..42 and 20..62, grown by 2"
    assert len(mask) == 1, "of one picture"
    _, each, _ = crop(image(2), model, mask=masks)
    assert len(each) == 2 and each[0].sum() > 4 * 30 and each[1].sum() > 4 * 3 and torch.equal(each.amax(0, keepdim=True), mask)


def test_a_box_over_the_border_is_clamped_and_one_outside_refused(model):
    _, _, box = crop(image(), model, factor=1.0, box=(-20, 150, 36, 100))
    assert box == Crop(0, 150, 16, 40, *SIZE)
    for outside in ((200, 0, 10, 10), (0, -50, 10, 50)):
        with pytest.raises(ValueError, match="lies outside of the picture, which has 130x190: choose x and y inside of it"):
            crop(image(), model, box=outside)
    assert run("Parts2WholeCropBox", image=image(), x=100, y=0, width=500, height=0) == Crop(100, 0, 30, 190, *SIZE)


def test_what_cannot_be_cropped_is_refused_with_words(model):
    with pytest.raises(ValueError, match="The mask is nowhere above 0.5, so there is nothing to crop"):
        crop(image(), model, mask=torch.full((1, 8, 8), 0.4))
    with pytest.raises(ValueError, match="The mask holds NaN"):
        crop(image(), model, mask=torch.full((1, 8, 8), float("nan")))
    with pytest.raises(ValueError, match="would be 32000x16 large; 16384 is the most. Lower the factor 16"):
        crop(torch.zeros(1, 1, 2000, 3), model, factor=16.0)


@pytest.mark.parametrize("feather", [0, 6])
def test_outside_of_the_box_every_pixel_is_kept(feather):
    picture, box = image(2), Crop(30, 40, 48, 64, *SIZE)
    pasted = paste(picture, torch.ones(1, 128, 96, 3), box, feather)
    inside = mask_of(30, 40, 78, 104).bool().expand(2, -1, -1)
    assert torch.equal(pasted[~inside], picture[~inside]) and not torch.equal(pasted, picture)
    assert pasted[:, 40 + feather:104 - feather, 30 + feather:78 - feather].eq(1).all(), "and beyond the feather it is the detail"
    assert torch.equal(picture, image(2)), "the picture that came in stays as it was"


def test_the_feather_rises_from_the_sides_but_not_at_the_pictures_border():
    pasted = paste(torch.zeros(1, 190, 130, 3), torch.ones(1, 8, 8, 3), crop_box(0, 40, 60, 60, SIZE), 10)[0, :, :, 0]
    assert pasted[70, :50].eq(1).all() and pasted[70, 60:].eq(0).all()
    assert torch.allclose(pasted[70, 50:60], 0.95 - torch.arange(10) * 0.1)
    assert torch.allclose(pasted[40:50, 20], 0.05 + torch.arange(10) * 0.1)


@pytest.mark.parametrize("feather", [16, 1024])
def test_a_feather_ends_in_the_middle_of_the_crop(feather):
    """Else hardly anything of a small detail, or nothing, would be seen."""
    black, white, box = torch.zeros(1, 190, 130, 3), torch.ones(1, 8, 8, 3), Crop(30, 40, 20, 64, *SIZE)
    pasted = paste(black, white, box, feather)
    row = pasted[0, 72, :, 0]
    assert row[39:41].eq(0.95).all() and (row[30:40].diff() > 0).all() and row[:30].eq(0).all()
    assert torch.allclose(paste(black, white, box, feather, mask=torch.ones(1, 8, 8)), pasted)


def test_a_mask_says_what_of_the_detail_is_taken():
    picture, box = image(), Crop(30, 40, 48, 64, *SIZE)
    mask = torch.zeros(1, 128, 96)
    mask[:, :64] = 1
    pasted = paste(picture, torch.ones(1, 128, 96, 3), box, mask=mask)
    assert pasted[:, 40:71, 30:78].eq(1).all() and torch.equal(pasted[:, 73:], picture[:, 73:])
    soft = paste(picture, torch.ones(1, 128, 96, 3), box, 8, mask=mask)
    assert 0.2 < float(((soft - picture) / (1 - picture))[0, 72, 54].mean()) < 0.8, "the feather softens the mask too"
    assert torch.equal(paste(picture, torch.ones(1, 8, 8, 3), box, mask=torch.zeros(1, 8, 8)), picture)


def test_all_of_several_masks_are_pasted_into_one_picture():
    """As a detector's, with one for each face."""
    picture, box = image(), Crop(30, 40, 48, 64, *SIZE)
    masks = torch.zeros(3, 64, 48)
    for i, mask in enumerate(masks):
        mask[20 * i:20 * i + 10] = 1
    pasted, ones = paste(picture, torch.ones(1, 64, 48, 3), box, mask=masks), masks.any(0)
    inside = pasted[0, 40:104, 30:78]
    assert inside[ones].eq(1).all() and torch.equal(inside[~ones], picture[0, 40:104, 30:78][~ones])
    of_each = paste(image(3), torch.ones(1, 64, 48, 3), box, mask=masks)[:, 40:104, 30:78]
    assert all(each[mask > 0].eq(1).all() for each, mask in zip(of_each, masks))
    assert torch.equal(of_each[1, :10], image(3)[1, 40:50, 30:78])
    with pytest.raises(ValueError, match="The mask is a batch of none"):
        paste(picture, torch.ones(1, 64, 48, 3), box, mask=masks[:0])


def test_a_picture_of_another_size_gets_it_at_the_same_place():
    """As after an upscale."""
    picture = image(size=(260, 380))
    pasted = paste(picture, torch.ones(1, 128, 96, 3), Crop(30, 40, 48, 64, *SIZE))
    assert pasted[:, 80:208, 60:156].eq(1).all() and torch.equal(pasted[:, :, :60], picture[:, :, :60])


@pytest.mark.parametrize("size, said", [
    (SIZE, False), ((260, 380), False), ((65, 95), False), ((264, 384), False), ((520, 768), False), ((40, 56), False),
    ((190, 130), True), ((130, 130), True), ((64, 48), True), ((480, 768), True),
], ids=str)
def test_a_picture_of_another_shape_is_told(size, said, caplog):
    """As where a crop of a crop is pasted into the whole at once, or pictures were mixed up."""
    paste(image(size=size), torch.ones(1, 128, 96, 3), Crop(30, 40, 48, 64, *SIZE))
    told = f"the picture is {size[0]}x{size[1]}, and was cropped from one of another shape, 130x190: the detail is stretched"
    assert caplog.text.count(told) == said and caplog.text.count("another shape") == said


def test_batches_and_alpha():
    box = Crop(30, 40, 48, 64, *SIZE)
    assert len(paste(image(1), torch.ones(3, 8, 8, 3), box)) == 3
    assert len(paste(image(3), torch.ones(1, 8, 8, 3), box)) == 3
    picture = image(1, 4)
    pasted = paste(picture, torch.ones(1, 8, 8, 3), box)
    assert torch.equal(pasted[..., 3], picture[..., 3]) and pasted[0, 50, 50, :3].eq(1).all()
    assert paste(image(1), torch.ones(1, 8, 8, 4), box).shape[-1] == 3


def test_there_and_back_again_is_nearly_the_picture(model):
    """What is cropped, enlarged and pasted as it is."""
    slope = torch.linspace(0, 1, 190)[None, :, None, None].expand(1, -1, 130, 3)
    detail, _, box = crop(slope, model, mask=mask_of(40, 40, 80, 100))
    assert torch.allclose(paste(slope, detail, box, 5), slope, atol=0.012)
