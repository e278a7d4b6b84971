"""The network of the pose guider (arXiv 2404.15267, section 3.4). Torch only: ComfyUI and the training code both call it."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F


class PoseNetwork(nn.Module):
    """3x3 convolutions from a picture at 8 times the latent's size to the width of the U-Net."""

    def __init__(self, in_channels: int, widths: list[int], out_channels: int, operations=nn):
        super().__init__()
        self.conv_in = operations.Conv2d(in_channels, widths[0], 3, padding=1)
        self.blocks = nn.ModuleList()
        for width, next_width in zip(widths, widths[1:]):
            self.blocks.append(operations.Conv2d(width, width, 3, padding=1))
            self.blocks.append(operations.Conv2d(width, next_width, 3, padding=1, stride=2))
        self.conv_out = operations.Conv2d(widths[-1], out_channels, 3, padding=1)

    @property
    def scale(self) -> int:
        """Pixels of the pose picture for each pixel of the latent."""
        return 2 ** (len(self.blocks) // 2)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """[B, 3, H, W] in 0..1 -> [B, C, H / scale, W / scale]"""
        x = F.silu(self.conv_in(picture))
        for block in self.blocks:
            x = F.silu(block(x))
        return self.conv_out(x)
