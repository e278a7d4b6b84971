"""Cut-outs of parts, and how edit models are told of them."""

import pytest
import torch
from parts2whole.pictures.cut_out import STEP, cut_outs, side_by_side
from parts2whole.pictures.describe import describe_parts
from parts2whole.pictures.part import make_part


def masked_part(height=60, width=80, box=(10, 40, 20, 30), value=1.0, channels=3):
    """A random picture whose mask is a box: top, bottom, left, right"""
    image = torch.rand(1, height, width, channels, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, height, width)
    mask[:, box[0]:box[1], box[2]:box[3]] = value
    return make_part("shoes", image, mask)


def test_a_crop_is_the_box_of_the_mask():
    part = masked_part()
    (cut,) = cut_outs(part)
    assert torch.equal(cut.image, part.image[0, 10:40, 20:30]) and torch.equal(cut.mask, torch.ones(30, 10))


def test_a_mask_of_which_nothing_is_left_at_the_pictures_size_is_all_white():
    mask = torch.zeros(1, 800, 1200)
    mask[0, 1, 1] = 1
    (cut,) = cut_outs(make_part("shoes", torch.zeros(1, 80, 120, 3), mask))
    assert cut.image.shape == (80, 120, 3) and cut.image.eq(1).all() and not cut.mask.any()


def test_the_whole_picture_is_white_around_the_mask():
    part = masked_part()
    (cut,) = cut_outs(part, "whole")
    assert torch.equal(cut.mask, part.mask[0]) and (cut.image[part.mask[0] == 0] == 1).all()
    assert torch.equal(cut.image[part.mask[0] > 0], part.image[0][part.mask[0] > 0])


def test_a_soft_mask_blends_with_the_white():
    part = masked_part(value=0.25)
    (cut,) = cut_outs(part)
    assert torch.allclose(cut.image, 0.25 * part.image[0, 10:40, 20:30] + 0.75)
    assert (cut.mask == 0.25).all()


def test_transparency_is_white_too():
    part = masked_part(channels=4)
    (cut,) = cut_outs(part)
    rgb, alpha = part.image[0, 10:40, 20:30].split([3, 1], -1)
    assert torch.allclose(cut.image, rgb * alpha + 1 - alpha)


def test_the_soft_edge_of_a_cut_out_is_blended_once():
    """Its alpha is the picture's and the mask's too."""
    image = torch.rand(1, 20, 30, 4, generator=torch.Generator().manual_seed(0))
    expected = image[..., :3] * image[..., 3:] + 1 - image[..., 3:]
    for mask in (None, image[..., 3], image[..., 3] ** 0.5):
        (cut,) = cut_outs(make_part("hair", image, mask), "whole")
        assert torch.allclose(cut.image, expected[0], atol=1e-6)
    (cut,) = cut_outs(make_part("hair", image, image[..., 3] / 2), "whole")  # painted on it, not wholly
    assert torch.allclose(cut.image, image[0, ..., :3] * image[0, ..., 3:] / 2 + 1 - image[0, ..., 3:] / 2, atol=1e-6)


@pytest.mark.parametrize("fit, aspect", [("crop", 10 / 30), ("whole", 80 / 60)])
@pytest.mark.parametrize("megapixels", [0.02, 0.25, 1.0])
def test_the_size_is_the_budget_in_whole_tokens(fit, aspect, megapixels):
    (cut,) = cut_outs(masked_part(), fit, megapixels)
    height, width = cut.mask.shape
    assert cut.image.shape == (height, width, 3) and height % STEP == width % STEP == 0
    assert abs(height * width / (megapixels * 2**20) - 1) < 0.25 and abs(width / height / aspect - 1) < 0.25
    assert cut.image.min() >= 0 and cut.image.max() <= 1


@pytest.mark.parametrize("fit", ["crop", "whole"])
def test_what_is_around_the_mask_never_shows(fit):
    """Scaling mixes pixels: only what is inside the mask may be among them."""
    part = masked_part()
    other = make_part("shoes", torch.where(part.mask[..., None] > 0, part.image, 0.5), part.mask)
    for megapixels in (None, 0.02, 0.5):
        for a, b in zip(cut_outs(part, fit, megapixels), cut_outs(other, fit, megapixels)):
            assert torch.equal(a.image, b.image) and torch.equal(a.mask, b.mask)


def test_a_mask_of_another_size_and_a_tiny_one():
    part = make_part("shoes", torch.rand(1, 40, 40, 3), torch.zeros(1, 10, 10).index_fill_(1, torch.tensor([5]), 1.0))
    (cut,) = cut_outs(part, "crop", 0.1)
    assert cut.mask.max() == 1 and cut.mask.shape[1] > 2 * cut.mask.shape[0]
    (cut,) = cut_outs(masked_part(box=(5, 6, 5, 6)), "crop", 0.01)
    assert cut.mask.min() > 0


def test_cut_outs_of_different_sizes_stand_side_by_side():
    cuts = [*cut_outs(masked_part()), *cut_outs(masked_part(box=(0, 10, 0, 50)))]
    images, masks = side_by_side(cuts)
    assert images.shape == (2, 30, 50, 3) and masks.shape == (2, 30, 50)
    assert torch.equal(images[0, :, 20:30], cuts[0].image) and (images[0, :, :20] == 1).all() and (masks[0, :, :20] == 0).all()
    assert torch.equal(images[1, 10:20], cuts[1].image)


def test_sentences_name_every_picture():
    face = make_part("face", torch.rand(1, 4, 4, 3))
    shoes = make_part("red {shoes}", torch.rand(2, 4, 4, 3))
    text = describe_parts([face, shoes], "{parts} She {runs|walks}.", "Image {number}: the {label}.", 2)
    assert text == "Image 2: the face. Image 3: the red {shoes}. Image 4: the red {shoes}. She {runs|walks}."
    with pytest.raises(ValueError, match="has no {parts}"):
        describe_parts([face], "a person", "{label}")
    with pytest.raises(ValueError, match="has no {label}"):
        describe_parts([face], "{parts}", "a person")
