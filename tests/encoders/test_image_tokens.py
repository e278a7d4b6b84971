"""The square that CLIP sees of a picture."""

import pytest
import torch
from harness.memory import MIB, most_memory
from parts2whole.encoders.image_tokens import _crop_square, image_tokens
from parts2whole.pictures.frame import resize_bicubic
from parts2whole.pictures.part import LabelledPart, make_part


def crop_of_all(picture, size):
    """The whole picture resized, then cropped."""
    height, width = picture.shape[:2]
    short = min(height, width)
    height, width = size * height // short, size * width // short
    top, left = (height - size) // 2, (width - size) // 2
    return resize_bicubic(picture, width, height)[None, top:top + size, left:left + size]


@pytest.mark.parametrize("shape", [(40, 800), (801, 40), (33, 900), (5, 5000), (3000, 7)], ids=str)
def test_a_thin_picture_is_seen_as_if_all_of_it_were_resized(shape):
    picture = torch.rand(*shape, 3)
    assert (_crop_square(picture, 32) - crop_of_all(picture, 32)).abs().mean() < 1.5 / 255  # noise, where half a pixel tells


@pytest.mark.parametrize("shape", [(300, 2900), (200, 200), (224, 400), (950, 100)], ids=str)
def test_other_pictures_are_seen_to_the_bit_as_if_all_of_it_were_resized(shape):
    picture = torch.rand(*shape, 3)
    assert torch.equal(_crop_square(picture, 224), crop_of_all(picture, 224))


@pytest.mark.parametrize("shape", [(1, 8000), (8000, 1), (2, 60000)], ids=str)
def test_a_thin_picture_takes_memory_for_what_is_seen_of_it(shape):
    picture = torch.rand(*shape, 3)
    assert most_memory(lambda: _crop_square(picture, 224)) < 50 * MIB


def test_six_pictures_have_a_token_each_and_a_seventh_is_refused(checkpoint):
    def tokens(count):
        part = LabelledPart(make_part("face", torch.rand(count, 32, 32, 3)), None, None)
        return image_tokens(checkpoint.clip_vision, (part,))

    assert tokens(6).shape == (1, 6, 32) and tokens(6).any(-1).all()
    with pytest.raises(ValueError, match="at most 6 reference pictures, got 7"):
        tokens(7)


def test_alpha_is_not_seen(checkpoint):
    picture = torch.rand(1, 32, 32, 4)
    with_alpha, without = (
        image_tokens(checkpoint.clip_vision, (LabelledPart(make_part("face", each), None, None),))
        for each in (picture, picture[..., :3])
    )
    assert torch.equal(with_alpha, without)
