"""What is applied to a MODEL: plain values that travel with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from comfy.model_patcher import ModelPatcher

from ..bank import Appearance, BlockAddress
from ..image_attention import KeysAndValues


@dataclass(frozen=True, eq=False)
class AppliedParts:
    """References for the shared self-attention.

    keep_removed: masked-out tokens stay in the softmax as zero keys, as trained; otherwise they are dropped
    strength: weight of the references in the softmax, 1 as trained
    start, end: part of the noise schedule in which they act, 0..1
    region: [B, H, W] in 0..1, of any size, where in the target they act; None: everywhere
    levels: factors of the strength by how often the latent was halved, from 0 on; the last one holds for all deeper levels
    """

    appearance: Appearance
    keep_removed: bool
    strength: float
    start: float
    end: float
    region: torch.Tensor | None = None
    levels: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, eq=False)
class AppliedPose:
    """Pose pictures [B, H, W, C] in 0..1 for the pose guider; strength multiplies its features."""

    guider: ModelPatcher
    image: torch.Tensor
    strength: float
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class AppliedImageAttention:
    """Keys and values [1, 6, C] of the image tokens at every cross-attention layer; strength multiplies their output.

    context_channels: width of the text beside which they were trained
    """

    keys: Mapping[BlockAddress, KeysAndValues]
    context_channels: int
    strength: float
    start: ClassVar[float] = 0.0
    end: ClassVar[float] = 1.0
