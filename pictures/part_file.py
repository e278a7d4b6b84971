"""A part from a picture file, and where its mask comes from."""

from __future__ import annotations

import os

import node_helpers
import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from .part import Part, make_part

# The host's mask editor saves what it painted under this name, with the painted places transparent.
MASK_EDITOR_PREFIX = "clipspace"


def is_from_mask_editor(image: str) -> bool:
    """Whether a picture of the input folder, by its name there, was saved by the mask editor."""
    return image.startswith(MASK_EDITOR_PREFIX) or os.path.basename(image).startswith(MASK_EDITOR_PREFIX)


def read_part(path: str, label: str, mask_source: str, mask: torch.Tensor | None) -> Part:
    """Reads the picture of a part.

    mask_source: where the mask comes from if none is given: `alpha` (the opaque places of a cut-out), `painted` (the places
        that the mask editor made transparent) or `whole picture`
    mask: [1, H', W'] in 0..1, or None
    raises: ValueError for a file that is no picture, for one on which nothing was painted, and as `make_part` does
    """
    picture = _read_picture(path)
    rgb, alpha = picture[..., :3], picture[..., 3:]
    if mask_source == "painted":
        if mask is None and not alpha.numel():
            raise ValueError(
                f"{path} has no transparency, so nothing was painted on it. Paint the part in the mask editor (right click on "
                "the node, Open in MaskEditor), connect a mask, or set mask_source to 'whole picture'."
            )
        # What is painted becomes transparent, but keeps its colours.
        return make_part(label, rgb, 1.0 - alpha[..., 0] if mask is None else mask)
    if mask_source == "whole picture" and mask is None:
        mask = torch.ones(picture.shape[:3])
    return make_part(label, picture, mask)


def _read_picture(path: str) -> torch.Tensor:
    """[1, H, W, 3 or 4] in 0..1"""
    try:
        picture = node_helpers.pillow(Image.open, path)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture, or it is damaged. Upload it again.") from None
    picture = node_helpers.pillow(ImageOps.exif_transpose, picture)
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if picture.mode.startswith("I"):  # 16 bits
        picture = picture.point(lambda value: value / 256)
    pixels = np.array(picture.convert("RGBA" if transparent else "RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]
