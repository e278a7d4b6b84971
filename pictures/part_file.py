"""A part from a picture file, and where its mask comes from."""

from __future__ import annotations

import os

import torch

from .part import Part, escaped, make_part
from .picture_file import read_picture

# The host's mask editor saves what it painted under this name, with the painted pixels transparent.
MASK_EDITOR_PREFIX = "clipspace"


def is_from_mask_editor(name: str) -> bool:
    """Whether a picture of the input folder, by its name there, was saved by the mask editor."""
    return name.startswith(MASK_EDITOR_PREFIX) or os.path.basename(name).startswith(MASK_EDITOR_PREFIX)


def read_part(name: str, label: str, mask_source: str, mask: torch.Tensor | None) -> Part:
    """Reads the picture of a part from the input folder.

    mask_source: where the mask comes from if none is given: `alpha` (the opaque pixels of a cut-out), `painted` (the pixels
        that the mask editor made transparent), `whole picture`, or `auto` (painted for a picture from the mask editor, else alpha)
    mask: [1, H', W'] in 0..1, or None
    raises: ValueError for a picture on which nothing was painted, and as `read_picture` and `make_part` do
    """
    picture = read_picture(name)
    if mask_source == "auto":
        mask_source = "painted" if is_from_mask_editor(name) else "alpha"
    rgb, alpha = picture[..., :3], picture[..., 3:]
    if mask_source == "painted":
        if mask is None and not alpha.numel():
            raise ValueError(
                f"'{escaped(name)}' has no transparency, so nothing was painted on it. Paint the part in the mask editor (right "
                "click on the node, Open in MaskEditor), connect a mask, or set mask_source to 'whole picture'."
            )
        # What is painted becomes transparent, but keeps its colours.
        return make_part(label, rgb, 1.0 - alpha[..., 0] if mask is None else mask)
    if mask_source == "whole picture" and mask is None:
        mask = torch.ones(picture.shape[:3])
    return make_part(label, picture, mask)
