"""Losses that tell each layer what references are for, from data that knows where in the target each part is.

The release has none of these: it begins with a U-Net that has seen two billion pictures. From nothing, a loss at the output
alone needs very long to find the way from a colour in a reference, through features, keys and values, to its place.
"""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import UNet2DConditionModel

from attention.shared_attention import ReferenceKeys

# Of the attention in a part's region, how much should be its reference's.
LOOK = 0.6


class Readouts(nn.Module):
    """For each self-attention layer, two linear maps from its tokens to the latents at their places: one from the features
    that the appearance encoder gives, one from what the attention adds to the U-Net's. They serve training only.
    """

    def __init__(self, unet: UNet2DConditionModel):
        super().__init__()
        channels = unet.config.in_channels
        widths = {
            name.removesuffix(".attn1"): module.to_q.in_features
            for name, module in unet.named_modules() if name.endswith(".attn1")
        }
        self.names = {f"{name}.attn1": name.replace(".", "_") for name in widths}
        self.references = nn.ModuleDict({name.replace(".", "_"): nn.Linear(width, channels) for name, width in widths.items()})
        self.outputs = nn.ModuleDict({name.replace(".", "_"): nn.Linear(width, channels) for name, width in widths.items()})


class LayerHints:
    """Collects the losses of one forward pass. Of each picture's noises, the last and strongest counts: there the picture
    itself tells nothing.

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
        self.looked, self.read = [], []

    def look(
        self, q: torch.Tensor, k: torch.Tensor, references: ReferenceKeys, counts: list[int], own: tuple[int, ...],
        grid: tuple[int, int], heads: int,
    ):
        """One picture's attention in one layer. q, k: [T, C]; the rest as `looking_loss` has it."""
        self.looked.append(looking_loss(q, k, references, counts, _pooled(self.regions[list(own)], grid), heads))

    def read_layer(self, layer: str, bank: torch.Tensor, output: torch.Tensor, grid: tuple[int, int]):
        """One layer. bank: [R, T, C], features of the references; output: [B * N, T, C], of each picture N times in a row"""
        name = self.readouts.names[layer]
        output = output.unflatten(0, (len(self.latents), -1))[:, -1]
        self.read += [
            _error(self.readouts.references[name](bank), self.reference_latents, self.masks, grid),
            _error(self.readouts.outputs[name](output), self.latents, self.covered, grid),
        ]


def looking_loss(
    q: torch.Tensor, k: torch.Tensor, references: ReferenceKeys, counts: list[int], regions: torch.Tensor, heads: int
) -> torch.Tensor:
    """Cross-entropy of how much each target token attends to each reference from how much it should.

    q, k: [T, C], the target's own; counts: of the keys of each reference, of which `references` begins
    regions: [R, T] in 0..1: where it is 1, LOOK of the attention, over all heads, should be the reference's; the rest is
        the target's own
    """
    bias = references.k.new_zeros(len(references.k)) if references.bias is None else references.bias
    q, own, other = (x.unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, k, references.k))
    logits = torch.cat([q @ own.transpose(1, 2), q @ other.transpose(1, 2)], -1) / q.shape[-1] ** 0.5
    logits[..., len(k):] += bias
    weights = logits.softmax(-1).mean(0)[:, len(k):]
    seen = torch.stack([part.sum(-1) for part in weights[:, : sum(counts)].split(counts, -1)])
    seen = torch.cat([seen, 1 - seen.sum(0, keepdim=True)]).clamp(min=1e-4)
    asked = LOOK * regions
    asked = torch.cat([asked, 1 - asked.sum(0, keepdim=True)])
    return -(asked * seen.log()).sum(0).mean()


def _error(read: torch.Tensor, latents: torch.Tensor, weights: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean square. read: [N, T, 4]; latents: [N, 4, h, w]; weights: [N, H, W] in 0..1"""
    weights = _pooled(weights, grid)
    errors = ((read - _pooled(latents, grid)) ** 2).mean(-1)
    return (weights * errors).sum() / weights.sum().clamp(min=1)


def _pooled(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """[N, H, W] -> [N, T], [N, C, H, W] -> [N, T, C]"""
    pooled = F.adaptive_avg_pool2d(maps if maps.ndim == 4 else maps[:, None], grid).flatten(2).transpose(1, 2)
    return pooled if maps.ndim == 4 else pooled[..., 0]
