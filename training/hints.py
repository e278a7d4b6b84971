"""Losses that tell each layer what references are for, from data that knows where in the target each part is.

The release has none of these: it begins with a U-Net that has seen two billion pictures. From nothing, a loss at the output
alone needs very long to find the way from a colour in a reference, through features, keys and values, to its place.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from einops import rearrange

from attention.shared_attention import ReferenceKeys

# Of the attention in a part's region, how much should be its reference's.
LOOK = 0.6


class Readouts(nn.Module):
    """For each self-attention layer, by its name with underscores for dots, two linear maps from its tokens to the latents at
    their places: one from the features that the appearance encoder gives, one from what the attention adds to the U-Net's.
    They serve training only.
    """

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        widths = {
            _key(name): module.to_q.in_features for name, module in unet.named_modules() if name.endswith(".attn1")
        }
        self.from_bank, self.from_output = (
            nn.ModuleDict({key: nn.Linear(width, unet.config.in_channels) for key, width in widths.items()}) for _ in range(2)
        )


class LayerHints:
    """Collects the losses of one forward pass, until `close`. Of each picture's noises, the last counts: with several, it is
    the strongest, where the picture itself tells nothing.

    latents: [B, 4, h, w], of the targets; reference_latents: [R, 4, h, w]; masks: [R, H, W] in 0..1
    regions: [R, h, w] in 0..1, where in its target the part of each reference is
    of: for each picture the numbers of its references
    """

    def __init__(
        self, readouts: Readouts, latents: torch.Tensor, reference_latents: torch.Tensor, masks: torch.Tensor,
        regions: torch.Tensor, of: tuple[tuple[int, ...], ...],
    ):
        self.readouts, self.latents, self.reference_latents = readouts, latents, reference_latents
        self.masks, self.regions = masks, regions
        self.covered = torch.stack([regions[list(own)].sum(0) for own in of]).clamp(max=1)
        self.looking_losses, self.reading_losses = [], []
        self.closed = False

    def look(
        self, q: torch.Tensor, k: torch.Tensor, keys: ReferenceKeys, counts: list[int], own: tuple[int, ...],
        grid: tuple[int, int], heads: int,
    ):
        """One picture's attention in one layer. q, k: [T, C]; the rest as `looking_loss` has it."""
        loss = looking_loss(q, k, keys, counts, _pooled(self.regions[list(own)], grid), heads)
        if not self.closed:
            self.looking_losses.append(loss)

    def read_layer(self, layer: str, bank: torch.Tensor, output: torch.Tensor, grid: tuple[int, int]):
        """One layer. bank: [R, T, C], features of the references; output: [B * N, T, C], of each picture N times in a row"""
        output = rearrange(output, "(b n) t c -> b n t c", b=len(self.latents))[:, -1]
        losses = [
            _error(self.readouts.from_bank[_key(layer)](bank), self.reference_latents, self.masks, grid),
            _error(self.readouts.from_output[_key(layer)](output), self.latents, self.covered, grid),
        ]
        if not self.closed:
            self.reading_losses += losses

    def close(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean losses of looking and of reading. What gradient checkpointing computes again is not kept."""
        self.closed = True
        return torch.stack(self.looking_losses).mean(), torch.stack(self.reading_losses).mean()


def looking_loss(
    q: torch.Tensor, k: torch.Tensor, keys: ReferenceKeys, counts: list[int], regions: torch.Tensor, heads: int
) -> torch.Tensor:
    """Cross-entropy of how much each target token attends to each reference from how much it should, in single precision.

    q, k: [T, C], the target's own; counts: of the keys of each reference, of which `keys` begins
    regions: [R, T] in 0..1: where it is 1, LOOK of the attention, over all heads, should be the reference's; the rest is
        the target's own
    """
    with torch.autocast(q.device.type, enabled=False):
        bias = keys.k.new_zeros(len(keys.k)) if keys.bias is None else keys.bias
        q, own, other = (rearrange(x.float(), "t (h d) -> h t d", h=heads) for x in (q, k, keys.k))
        logits = torch.cat([q @ own.transpose(1, 2), q @ other.transpose(1, 2)], -1) / q.shape[-1] ** 0.5
        logits[..., len(k):] += bias.float()
        weights = logits.softmax(-1).mean(0)[:, len(k):]
        seen = torch.stack([part.sum(-1) for part in weights[:, : sum(counts)].split(counts, -1)])
        seen = torch.cat([seen, 1 - seen.sum(0, keepdim=True)]).clamp(min=1e-4)
        asked = LOOK * regions
        asked = torch.cat([asked, 1 - asked.sum(0, keepdim=True)])
        return -(asked * seen.log()).sum(0).mean()


def _key(layer: str) -> str:
    return layer.replace(".", "_")


def _error(values: torch.Tensor, latents: torch.Tensor, weights: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean square. values: [N, T, 4]; latents: [N, 4, h, w]; weights: [N, H, W] in 0..1"""
    weights = _pooled(weights, grid)
    errors = ((values.float() - _pooled(latents, grid)) ** 2).mean(-1)
    return (weights * errors).sum() / weights.sum().clamp(min=1)


def _pooled(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """[N, H, W] -> [N, T], [N, C, H, W] -> [N, T, C]"""
    layout = "n c h w -> n (h w) c" if maps.ndim == 4 else "n h w -> n (h w)"
    return rearrange(F.adaptive_avg_pool2d(maps, grid), layout)
