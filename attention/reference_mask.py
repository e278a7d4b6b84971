"""Mask-guided selection: which tokens of a reference take part (arXiv 2404.15267, section 3.3, "Mask-Guided Selection")."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def token_mask(mask: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Brings a mask in pixels to the token grid of a self-attention layer and dilates it by one token.

    Nearest neighbour (index floor(i * H / h)), then a 3x3 sum of ones with zero padding, clamped: soft masks stay soft.

    mask: [H, W] in 0..1
    grid: (h, w) of the layer, in tokens
    returns: [h * w] in 0..1, row by row
    """
    mask = F.interpolate(mask[None, None].float(), size=grid, mode="nearest")
    mask = F.conv2d(mask, torch.ones(1, 1, 3, 3, device=mask.device), padding=1)
    return mask.clamp(0.0, 1.0).flatten()
