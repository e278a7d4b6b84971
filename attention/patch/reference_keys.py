"""The references' keys and values at one self-attention layer: projected once, by the denoiser's own to_k and to_v."""

from __future__ import annotations

import torch

from ..bank import BlockAddress
from ..shared_attention import ReferenceGroup, ReferenceKeys, join_references
from .applied import AppliedParts
from .host.unet import Projections


def project_references(
    parts: tuple[AppliedParts, ...], address: BlockAddress, depth: int, layer: Projections, as_mask: bool, device: torch.device,
    dtype: torch.dtype,
) -> ReferenceKeys:
    """depth: how often the latent was halved there; as_mask: whether an attention mask carries what is added to the logits"""
    groups, regions = [], 0
    for applied in parts:
        banks = [reference.banks[address] for reference in applied.appearance.references]
        tokens = torch.cat([bank.tokens for bank in banks]).to(device, dtype)
        lengths = [len(bank.tokens) for bank in banks]
        region = None
        if applied.region is not None:
            region, regions = regions, regions + 1
        strength = applied.strength_at(depth)
        for bank, k, v in zip(banks, layer.to_k(tokens).split(lengths), layer.to_v(tokens).split(lengths)):
            if strength > 0:
                groups.append(ReferenceGroup(k, v, strength, bank.removed if applied.keep_removed else 0, region))
            else:
                groups.append(ReferenceGroup(k[:0], v[:0], region=region))
    references = join_references(groups)
    return references if as_mask else references.widened(layer.heads)
