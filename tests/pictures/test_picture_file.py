"""Picture files of every kind, and what is refused."""

import numpy as np
import pytest
import torch
from harness.memory import most_memory
from harness.pictures import save
from parts2whole.pictures.picture_file import read_picture
from PIL import Image


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I;16", "CMYK"])
def test_pictures_of_every_mode(mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((9, 7), 32896, np.uint16))
    else:
        image = Image.new("RGB", (7, 9), (128, 128, 128)).convert(mode)
    picture = read_picture(save(image, f"mode_{mode.replace(';', '')}.{'tif' if mode == 'CMYK' else 'png'}"))
    assert picture.shape == (1, 9, 7, 4 if mode in ("RGBA", "LA") else 3)
    if mode not in ("1", "P"):  # those dither
        assert (picture[..., :3] - 128 / 255).abs().max() < 0.02


def test_exif_orientation():
    image = Image.new("RGB", (8, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    assert read_picture(save(image, "turned.jpg", exif=exif)).shape == (1, 8, 4, 3)


NOT_READ = "is not a picture that can be read here, or it is damaged. Save it as PNG or JPEG.*what can be read is PNG, JPEG"


@pytest.mark.parametrize("name, content", [
    ("text.png", b"not a picture"),
    ("drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    ("photo.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(99)),
    ("script.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"),
    ("empty.png", b""),
])
def test_a_file_that_is_no_picture_is_refused(folders, name, content):
    (folders / "input" / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"'{name}' {NOT_READ}"):
        read_picture(name)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp", "tif", "gif", "bmp"])
@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_picture_that_is_cut_short_is_refused(folders, kind, share):
    """Half of it would be grey."""
    name = save(Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)), f"whole.{kind}")
    content = (folders / "input" / name).read_bytes()
    (folders / "input" / f"cut.{kind}").write_bytes(content[:round(share * len(content))])
    with pytest.raises(ValueError, match=f"'cut.{kind}' is damaged or cut short.*Upload it again") as error:
        read_picture(f"cut.{kind}")
    assert str(folders) not in str(error.value)


def test_a_picture_with_a_large_workflow_in_it_is_read():
    """Pillow refuses such texts by itself."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("workflow", "x" * 2_000_000, zip=True)
    assert read_picture(save(Image.new("RGB", (8, 8), "red"), "workflow.png", pnginfo=info))[0, 0, 0].tolist() == [1, 0, 0]


@pytest.mark.parametrize("side", [13000, 20000])
def test_a_picture_of_too_many_pixels_is_refused(side, monkeypatch):
    name = save(Image.new("1", (side, side)), "large.png")
    with pytest.raises(ValueError, match="'large.png'.*too many pixels: at most 67 million.*Scale it down first"):
        read_picture(name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)  # as other packs set it
    with pytest.raises(ValueError, match=f"'large.png', of {side}x{side},.*too many pixels"):
        read_picture(name)


def test_a_large_picture_takes_no_more_than_it_needs():
    name = save(Image.new("RGB", (4000, 4000)), "large.png")
    assert most_memory(lambda: read_picture(name)) < 4000 * 4000 * 32


def gradient(dtype, most):
    """From 0 to `most`."""
    return (np.arange(256) / 255 * most).astype(dtype)[None].repeat(3, 0)


@pytest.mark.parametrize("name, pixels", [
    ("float.tif", gradient(np.float32, 1)), ("float_255.tif", gradient(np.float32, 255).round()),
    ("float_65535.tif", gradient(np.float32, 65535).round()), ("int.tif", gradient(np.int32, 65535)),
    ("int_255.tif", gradient(np.int32, 255)), ("short.tif", gradient(np.uint16, 65535)), ("short.png", gradient(np.uint16, 65535)),
    ("big_endian.tif", gradient(">u2", 65535)),
])
def test_grey_of_more_than_8_bits(name, pixels):
    image = read_picture(save(Image.fromarray(pixels), name))
    assert image.shape == (1, 3, 256, 3)
    assert (image - torch.linspace(0, 1, 256)[:, None]).abs().max() <= 1 / 255


def test_dark_16_bits_are_dark():
    assert read_picture(save(Image.fromarray(gradient(np.uint16, 255)), "dark.png")).max() == 0


def test_16_bits_with_a_transparent_value():
    image = read_picture(save(Image.fromarray(gradient(np.uint16, 65535)), "transparent.png", transparency=65535))
    assert image[0, 0, :, 3].tolist() == [1] * 255 + [0] and image[0, 0, 128, 0] == 128 / 255


@pytest.mark.parametrize("pixels", [
    gradient(np.float32, 3.5), -gradient(np.float32, 1), gradient(np.float32, 1e9), gradient(np.float32, np.nan),
    gradient(np.int32, 2 ** 30), -gradient(np.int32, 9),
], ids=["high dynamic range", "negative", "huge", "not finite", "32 bits", "negative whole"])
def test_numbers_whose_white_is_not_known_are_refused(pixels):
    with pytest.raises(ValueError, match="'range.tif' holds numbers from .*expected 0..1, or whole numbers up to 255 or 65535"):
        read_picture(save(Image.fromarray(pixels), "range.tif"))
