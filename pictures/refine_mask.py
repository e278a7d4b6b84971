"""Mends the mask of a part: what parsers and brushes leave behind."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage

# Of the guided filter: how much contrast counts as an edge, and how much steeper than it leaves it the border is to be.
EDGE, STEEP = 1e-3, 4.0


def refine_mask(
    mask: torch.Tensor, image: torch.Tensor | None, largest: bool, fill_holes: bool, grow: int, edges: int, feather: int
) -> torch.Tensor:
    """In this order: the largest piece alone, holes filled, grown or shrunk, fitted to the picture's edges, feathered.

    mask: [B, H, W] in 0..1
    image: [B or 1, H', W', C] in 0..1, the picture of the mask, for its edges; resized to the mask's size
    grow: by so many pixels, negative to shrink
    edges: radius in pixels in which the mask's border looks for an edge of the picture; 0: not at all
    feather: radius in pixels over which the border becomes soft
    returns: [B, H, W] in 0..1
    raises: ValueError for edges without a picture, and where the batches do not fit
    """
    if edges and image is None:
        raise ValueError("Refine Mask needs the picture to find its edges: connect `image`, or set edges to 0.")
    if image is not None and image.shape[0] not in (1, mask.shape[0]):
        raise ValueError(f"Refine Mask got {len(mask)} masks and {len(image)} pictures: give one picture, or one for each mask.")
    mask = torch.stack([_whole(each.cpu(), largest, fill_holes) for each in mask])
    if grow:
        sign = 1 if grow > 0 else -1
        for step in range(abs(grow)):  # a cross in turn with a square comes near to a disc
            kernels = ((3, 1), (1, 3)) if step % 2 else ((3, 3),)
            grown = [F.max_pool2d(sign * mask[:, None], kernel, 1, (kernel[0] // 2, kernel[1] // 2))[:, 0] for kernel in kernels]
            mask = sign * torch.stack(grown).amax(0)
    if edges:
        grey = image[..., :3].cpu().mean(-1)[:, None]
        grey = F.interpolate(grey, size=mask.shape[1:], mode="bilinear", antialias=True).expand(mask.shape[0], -1, -1, -1)
        mask = ((_guided_filter(grey, mask[:, None], edges)[:, 0] - 0.5) * STEEP + 0.5).clamp(0.0, 1.0)
    if feather:
        mask = torch.from_numpy(ndimage.gaussian_filter(mask.numpy(), (0, feather / 2, feather / 2)))
    return mask.clamp(0.0, 1.0)


def _whole(mask: torch.Tensor, largest: bool, fill_holes: bool) -> torch.Tensor:
    """[H, W]: soft values stay, where a piece stays."""
    shown = mask.numpy() > 0.5
    if largest and shown.any():
        pieces, _ = ndimage.label(mask.numpy() > 0, structure=np.ones((3, 3)))
        sizes = np.bincount(pieces[shown], minlength=2)
        sizes[0] = 0
        mask = mask * torch.from_numpy(pieces == sizes.argmax())
    if fill_holes:
        mask = torch.maximum(mask, torch.from_numpy(ndimage.binary_fill_holes(mask.numpy() > 0.5)).to(mask.dtype))
    return mask


def _guided_filter(guide: torch.Tensor, mask: torch.Tensor, radius: int) -> torch.Tensor:
    """He, Sun and Tang, "Guided Image Filtering", 2013: in every window the mask as a line of the picture's grey. [B, 1, H, W]"""

    def mean(x: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    mean_guide, mean_mask = mean(guide), mean(mask)
    slope = (mean(guide * mask) - mean_guide * mean_mask) / (mean(guide * guide) - mean_guide**2 + EDGE)
    offset = mean_mask - slope * mean_guide
    return mean(slope) * guide + mean(offset)
