"""A part from a picture file, and where its mask comes from."""

from __future__ import annotations

import torch

from .painted import is_from_mask_editor, opened_cut_out, strokes
from .part import Part, escaped, make_part, mask_or_alpha
from .picture_file import read_picture

# Of the picture: more than that of a part is rarely painted, and rather what is around it.
MOST_PAINTED = 0.75


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
    if mask_source == "painted":
        return _painted_part(name, label, picture, mask)
    if mask_source == "whole picture" and mask is None:
        mask = torch.ones(picture.shape[:3])
    return make_part(label, picture, mask)


def _painted_part(name: str, label: str, picture: torch.Tensor, mask: torch.Tensor | None) -> Part:
    rgb, alpha = picture[..., :3], picture[..., 3:]
    if mask is None and not alpha.numel():
        raise ValueError(
            f"'{escaped(name)}' has no transparency, so nothing was painted on it. Paint the part in the mask editor (right "
            "click on the node, Open in MaskEditor), connect a mask, or set mask_source to 'whole picture'."
        )
    cut_out = opened_cut_out(name, picture) if alpha.numel() and is_from_mask_editor(name) else None
    if cut_out is not None:
        shown = torch.cat([rgb, cut_out[..., None]], -1)
        return make_part(label, shown, strokes(picture, cut_out) if mask is None else mask)
    # What is painted becomes transparent, but keeps its colours.
    return make_part(label, rgb, 1.0 - alpha[..., 0] if mask is None else mask)


def covers_too_much(name: str, mask_source: str, mask: torch.Tensor | None, share: float) -> bool:
    """Whether what was painted is rather what is around the part.

    share: of the picture that is kept, 0..1
    """
    painted = mask_source == "painted" or mask_source == "auto" and is_from_mask_editor(name)
    return painted and mask is None and share > MOST_PAINTED


def is_taken_whole(name: str, mask_source: str, mask: torch.Tensor | None, part: Part) -> bool:
    """Whether nothing says where in the picture the part is, nor that all of it is meant. part: as read"""
    asked = mask_source == "auto" and not is_from_mask_editor(name) and mask is None
    return asked and bool((mask_or_alpha(part.image, part.mask) == 1).all())
