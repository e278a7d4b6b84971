"""Where in the result a part belongs, told by the pose: regions by label from a raw IUV DensePose picture."""

from __future__ import annotations

import torch

from .part import LABELS
from .pose_kind import require_iuv
from .sliding import largest, unseen

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS

# DensePose's part indices. Hands (3, 4) are nobody's.
TORSO, FEET, UPPER_LEGS, LOWER_LEGS, ARMS, HEAD = (1, 2), (5, 6), (7, 8, 9, 10), (11, 12, 13, 14), tuple(range(15, 23)), (23, 24)
INDICES = {
    FACE: HEAD,
    HAIR: HEAD,
    UPPER: TORSO + ARMS,
    LOWER: UPPER_LEGS + LOWER_LEGS,
    WHOLE: TORSO + ARMS + UPPER_LEGS + LOWER_LEGS,
    SHOES: FEET,
}


def pose_region(image: torch.Tensor, label: str, grow: float) -> torch.Tensor:
    """The region of a part.

    image: [B, H, W, C >= 3] in 0..1, raw IUV
    label: one of the six
    grow: by how much the region is larger than the body's parts, on every side, as a share of the picture's height
    returns: [B, H, W], 0 or 1
    raises: ValueError for a picture that is not raw IUV
    """
    require_iuv(image)
    index = (image[..., 2].cpu() * 255).round()
    region = torch.isin(index, torch.tensor(INDICES[label], dtype=index.dtype)).float()
    steps = round(grow * image.shape[1])
    return largest(region, steps, unseen) if steps else region
