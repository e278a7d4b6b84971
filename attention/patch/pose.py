"""The pose guider (arXiv 2404.15267, section 3.4): a pose picture as features, added to the U-Net's first convolution."""

from __future__ import annotations

import comfy.utils
import torch
import torch.nn as nn


def encode_pose(guider: nn.Module, image: torch.Tensor, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    """Pose features for a latent of the given size.

    guider: an `encoders.pose_network.PoseNetwork`
    image: [B, H, W, C >= 3] in 0..1, of any size: resized by Lanczos, aspect ratio not kept
    grid: (h, w) of the latent
    returns: [B, C, h, w], float32
    """
    height, width = grid
    picture = comfy.utils.common_upscale(
        image[..., :3].movedim(-1, 1), width * guider.scale, height * guider.scale, "lanczos", "disabled"
    )
    return guider(picture.to(device, torch.float32))
