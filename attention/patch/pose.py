"""The pose guider (arXiv 2404.15267, section 3.4): a pose picture as features, added to the U-Net's first convolution."""

from __future__ import annotations

import comfy.utils
import torch
import torch.nn as nn
from einops import rearrange

from ...pictures.crop import WHOLE, Box, lanczos_of
from .batch import Batch
from .carried import Carried


def encode_pose(
    guider: nn.Module, image: torch.Tensor, grid: tuple[int, int], device: torch.device, crop: Box = WHOLE
) -> torch.Tensor:
    """Pose features for a latent of the given size.

    guider: an `encoders.pose_network.PoseNetwork`
    image: [B, H, W, C >= 3] in 0..1, of any size: resized by Lanczos, aspect ratio not kept
    grid: (h, w) of the latent
    crop: what of the picture the latent shows
    returns: [B, C, h, w], float32
    """
    image, height, width = rearrange(image[..., :3], "b h w c -> b c h w"), grid[0] * guider.scale, grid[1] * guider.scale
    if crop == WHOLE:
        picture = comfy.utils.common_upscale(image, width, height, "lanczos", "disabled")
    else:  # its sides run through pixels, which the host's resizing does not know
        picture = lanczos_of(image.flatten(0, 1), crop, width, height).unflatten(0, image.shape[:2])
    return guider(picture.to(device, torch.float32))


class AddPose(Carried):
    """input_block_patch: adds the pose features to the first convolution's output, in all rows.

    features: [R, C, h, w], a map for each row
    """

    def __init__(self, features: torch.Tensor, batch: Batch):
        self.features, self.batch, self._called = features, batch, False

    def __call__(self, h, options):
        first, self._called = not self._called, True
        if options.get("block", ("input", 0) if first else None) != ("input", 0):
            return h
        features = self.batch.like(self.features, len(h), options)
        if features.shape != h.shape:
            raise ValueError(
                f"Another node gives the U-Net's first convolution {list(h.shape[1:])} channels, rows and columns, where the pose "
                f"has {list(features.shape[1:])}: remove that node, or Apply Pose Guider."
            )
        return h + features.to(h.dtype)
