"""What references and poses take in memory while sampling, for the host to plan with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from comfy.model_patcher import ModelPatcher

from ..bank import BlockAddress
from ..shared_attention import widened_size
from .applied import AppliedParts, AppliedPose, EverythingApplied
from .host.sampling import heavier
from .host.unet import heads_of
from .run import APPLIED
from .unet_patches import takes_mask


def plan_memory(executor, model: ModelPatcher, noise_shape, *args, **kwargs):
    """Lets the host plan for the references' keys and values, and for the poses' features."""
    options = model.model_options["transformer_options"]
    applied, dtype = options.get(APPLIED, EverythingApplied()), model.model.get_dtype_inference()
    extra = sum(_pose_bytes(pose, noise_shape, dtype) for pose in applied.of(AppliedPose))
    if parts := applied.of(AppliedParts):
        regions = [each.region for each in parts if each.region is not None]
        # Where another node replaces the attention of single blocks, the heads carry it there; these few are not counted.
        wide = None if takes_mask(model.load_device, dtype, regions, options) else len(regions)
        extra += _key_bytes(parts, heads_of(model), wide, dtype)
    if extra:
        noise_shape = heavier(model, noise_shape, extra)
    return executor(model, noise_shape, *args, **kwargs)


def _key_bytes(
    parts: tuple[AppliedParts, ...], heads: Mapping[BlockAddress, int], regions: int | None, dtype: torch.dtype
) -> int:
    """regions: how many the heads carry beside the bias; None: they carry nothing"""
    elements = 0
    for applied in parts:
        for reference in applied.appearance.references:
            for address, bank in reference.banks.items():
                size = bank.tokens.shape[-1] // heads[address]
                elements += len(bank.tokens) * heads[address] * (size if regions is None else widened_size(size, regions))
    return 2 * elements * dtype.itemsize


def _pose_bytes(applied: AppliedPose, latents: Sequence[int], dtype: torch.dtype) -> int:
    """latents: [B, C, ..., h, w], their shape"""
    channels = applied.guider.model.conv_out.weight.shape[0]
    return min(len(applied.image), latents[0]) * channels * latents[-2] * latents[-1] * dtype.itemsize
