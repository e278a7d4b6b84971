"""A picture file of the host's input folder, by its name there."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import folder_paths
import node_helpers
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .part import escaped

# What Pillow may read, by its names, and what users call it. HEIF is there where another pack has added it.
FORMATS = {
    "PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "AVIF": "AVIF", "HEIF": "HEIC", "GIF": "GIF", "BMP": "BMP", "DIB": "DIB",
    "TIFF": "TIFF", "JPEG2000": "JPEG 2000", "PPM": "PPM", "TGA": "TGA", "ICO": "ICO",
}
MOST_PIXELS = 1 << 26  # 8192 x 8192


def digest_of(names: Iterable[str]) -> str:
    """Tells these pictures, by name and content, from others.

    raises: ValueError for a name that `picture_path` refuses
    """
    digest = hashlib.sha256()
    for name in names:
        path = picture_path(name)  # first, since a prompt may hold what is no name at all
        digest.update(name.encode())
        with open(path, "rb") as f:
            while some := f.read(1 << 20):
                digest.update(some)
    return digest.hexdigest()


def list_pictures() -> list[str]:
    """The names of the pictures that lie in the input folder."""
    folder = folder_paths.get_input_directory()
    files = [name for name in os.listdir(folder) if _is_file_inside(folder, name)]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]))


def list_pictures_in(folder: str) -> list[str]:
    """The names of the pictures in a folder of the input folder, with the folder; none for what is no folder there."""
    root = os.path.realpath(folder_paths.get_input_directory())
    path = os.path.realpath(os.path.join(root, folder))
    if os.path.dirname(path) != root or not os.path.isdir(path):
        return []
    files = [f"{folder}/{name}" for name in os.listdir(path) if _is_file_inside(root, f"{folder}/{name}")]
    return sorted(folder_paths.filter_files_content_types(files, ["image"]))


def picture_path(name: str) -> str:
    """Where the picture is. The host's endings " [output]" and " [temp]" name its other folders.

    raises: ValueError for what is not a file inside the folder; it is the same whether there is one outside
    """
    if isinstance(name, str):
        plain, folder = folder_paths.annotated_filepath(name)
        folder = folder or folder_paths.get_input_directory()
        if _is_file_inside(folder, plain):
            return os.path.join(folder, plain)
    raise ValueError(f"Invalid image file: {escaped(str(name))}. Upload it, or put it into ComfyUI's input folder.")


def read_picture(name: str) -> torch.Tensor:
    """Reads a picture, upright.

    returns: [1, H, W, 3 or 4] in 0..1; a fourth channel is alpha, not premultiplied
    raises: ValueError for a name that `picture_path` refuses, for other formats, for damaged files, for more than MOST_PIXELS
        and for numbers whose range is not known
    """
    path, title = picture_path(name), f"'{escaped(name)}'"
    Image.init()
    formats = [each for each in FORMATS if each in Image.OPEN]
    try:
        # Through the host, since Pillow refuses pictures that hold a large workflow. It reads the file's head only.
        picture = node_helpers.pillow(lambda path: Image.open(path, formats=formats), path)
    except UnidentifiedImageError:
        known = ", ".join(FORMATS[each] for each in formats)
        raise ValueError(
            f"{title} is not a picture that can be read here, or it is damaged. Save it as PNG or JPEG and upload that; what can "
            f"be read is {known}."
        ) from None
    except Image.DecompressionBombError:
        raise ValueError(_too_large(title)) from None
    except Exception as error:
        raise ValueError(_damaged(title, error)) from None
    with picture:
        if picture.width * picture.height > MOST_PIXELS:
            raise ValueError(_too_large(f"{title}, of {picture.width}x{picture.height},"))
        try:
            picture.load()
            picture = ImageOps.exif_transpose(picture)
        except Exception as error:  # every format has its own kinds
            raise ValueError(_damaged(title, error)) from None
    picture = _in_8_bits(picture, title)
    mode = "RGBA" if "A" in picture.getbands() or "transparency" in picture.info else "RGB"
    pixels = np.array(picture if picture.mode == mode else picture.convert(mode), dtype=np.float32)
    pixels /= 255.0
    return torch.from_numpy(pixels)[None]


def _is_file_inside(folder: str, name: str) -> bool:
    """Whether a file of this name lies in the folder, links followed. Never looks outside for a name that leads there."""
    try:
        folder = os.path.abspath(folder)
        path = os.path.abspath(os.path.join(folder, name))
        if os.path.commonpath((folder, path)) != folder:
            return False
        folder, path = os.path.realpath(folder), os.path.realpath(path)
        return os.path.commonpath((folder, path)) == folder and os.path.isfile(path)
    except ValueError:  # another drive, or a zero byte in the name
        return False


def _in_8_bits(picture: Image.Image, title: str) -> Image.Image:
    """Grey of 16 bits by its upper eight; grey of 32 bits and floats by what range it is in. Other pictures as they are."""
    if picture.mode != "F" and not picture.mode.startswith("I"):
        return picture
    values = np.asarray(picture)
    least, most = float(values.min()), float(values.max())
    if not (0 <= least <= most <= 1 or 0 <= least <= most <= 65535 and (values == values.round()).all()):
        raise ValueError(
            f"{title} holds numbers from {least:g} to {most:g}, and which of them is white is not known: expected 0..1, or whole "
            "numbers up to 255 or 65535. Save it with 8 or 16 bits."
        )
    if picture.mode == "F" and most <= 1:
        eight_bits = (values * 255).round()
    elif most > 255 or picture.mode.startswith("I;16") or picture.format in ("PNG", "PPM"):
        eight_bits = values // 256
    else:
        eight_bits = values
    grey = Image.fromarray(eight_bits.astype(np.uint8))
    if "transparency" in picture.info:
        grey.putalpha(Image.fromarray((values != picture.info["transparency"]).astype(np.uint8) * 255))
    return grey


def _too_large(title: str) -> str:
    return (
        f"{title} has too many pixels: at most {MOST_PIXELS // 1_000_000} million are read. Scale it down first, for example to "
        "4096 pixels on its longer side."
    )


def _damaged(title: str, error: Exception) -> str:
    what = getattr(error, "strerror", None) or str(error)  # not the server's path, which an OSError's text may end with
    return f"{title} is damaged or cut short ({what}). Upload it again."
