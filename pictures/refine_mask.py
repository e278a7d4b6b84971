"""Mends the mask of a part: what parsers and brushes leave behind."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

from .part import require_finite
from .sliding import Worked, blurred, largest_in_diamond, mean
from .sliding import largest as largest_in_square

# Of the guided filter: how much contrast counts as an edge, and how much steeper than it leaves it the border is to be.
EDGE, STEEP = 1e-3, 4.0


def refine_mask(
    mask: torch.Tensor, image: torch.Tensor | None, largest: bool, fill_holes: bool, grow: int, edges: int, feather: int
) -> torch.Tensor:
    """In this order: only the largest piece kept, holes filled, grown or shrunk, fitted to the picture's edges, feathered.

    The host can interrupt it, and shows how far it has come.

    mask: [B, H, W] in 0..1
    image: [B or 1, H', W', C] in 0..1, the picture of the mask, for its edges; resized to the mask's size
    grow: by so many pixels, negative to shrink
    edges: radius in pixels in which the mask's border looks for an edge of the picture; 0: not at all
    feather: radius in pixels over which the border becomes soft
    returns: [B, H, W] in 0..1
    raises: ValueError for edges without a picture, for batches that do not fit, and for values that are not finite
    """
    if edges and image is None:
        raise ValueError("Refine Mask needs the picture to find its edges: connect `image`, or set edges to 0.")
    if image is not None and image.shape[0] not in (1, mask.shape[0]):
        raise ValueError(f"Refine Mask got {len(mask)} masks and {len(image)} pictures: give one picture, or one for each mask.")
    require_finite(mask, "The mask")
    if edges:
        require_finite(image, "The picture")
    # For each pixel one to find the pieces, and one for each time that a filter passes along the rows or the columns.
    passes = 1 + 2 * bool(grow) + 12 * bool(edges) + 2 * bool(feather)
    worked = comfy.utils.ProgressBar(passes * mask.numel()).update
    mask = torch.stack([_whole(each.cpu(), largest, fill_holes, worked) for each in mask])
    if grow:
        sign = 1 if grow > 0 else -1
        # An octagon, which comes near to a disc.
        mask = largest_in_square(sign * mask, (abs(grow) + 1) // 2, worked)
        mask = sign * largest_in_diamond(mask, abs(grow) // 2)
    if edges:
        grey = image[..., :3].cpu().float().mean(-1)[:, None]
        grey = F.interpolate(grey, size=mask.shape[1:], mode="bilinear", antialias=True)[:, 0].expand(mask.shape[0], -1, -1)
        mask = ((_guided_filter(grey, mask, edges, worked) - 0.5) * STEEP + 0.5).clamp(0.0, 1.0)
    if feather:
        mask = blurred(mask, feather / 2, worked)
    return mask.clamp(0.0, 1.0)


def _whole(mask: torch.Tensor, largest: bool, fill_holes: bool, worked: Worked) -> torch.Tensor:
    """[H, W]: soft values stay, where a piece stays."""
    comfy.model_management.throw_exception_if_processing_interrupted()
    shown = mask.numpy() > 0.5
    if largest and shown.any():
        pieces, _ = ndimage.label(mask.numpy() > 0, structure=np.ones((3, 3)))
        sizes = np.bincount(pieces[shown], minlength=2)
        sizes[0] = 0
        mask = mask * torch.from_numpy(pieces == sizes.argmax())
    if fill_holes:
        mask = torch.maximum(mask, torch.from_numpy(ndimage.binary_fill_holes(mask.numpy() > 0.5)).to(mask.dtype))
    worked(mask.numel())
    return mask


def _guided_filter(guide: torch.Tensor, mask: torch.Tensor, radius: int, worked: Worked) -> torch.Tensor:
    """He, Sun and Tang, "Guided Image Filtering", 2013: in every square the mask as a line of the picture's grey. [B, H, W]"""
    mean_guide, mean_mask = mean(guide, radius, worked), mean(mask, radius, worked)
    covariance = mean(guide * mask, radius, worked) - mean_guide * mean_mask
    slope = covariance / (mean(guide * guide, radius, worked) - mean_guide**2 + EDGE)
    offset = mean_mask - slope * mean_guide
    return mean(slope, radius, worked) * guide + mean(offset, radius, worked)
