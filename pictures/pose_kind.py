"""What kind of pose picture one is, and raw IUV from those that hold the same."""

from __future__ import annotations

import torch

IUV, COLOUR_MAPPED, OPENPOSE, OTHER = "raw IUV", "colour-mapped DensePose", "OpenPose", "another kind of picture"

# The viridis colour map at index * 255 / 25, by which the usual DensePose preprocessor shows the part indices 0..24.
VIRIDIS = (
    (68, 1, 84), (71, 16, 99), (72, 29, 111), (71, 42, 122), (69, 55, 129), (65, 68, 135), (60, 79, 138), (55, 90, 140),
    (50, 100, 142), (46, 110, 142), (42, 120, 142), (38, 130, 142), (34, 139, 141), (31, 148, 140), (31, 158, 137), (34, 168, 132),
    (44, 177, 126), (58, 186, 118), (76, 194, 108), (96, 202, 96), (122, 209, 81), (147, 215, 65), (173, 220, 48), (200, 224, 32),
    (226, 228, 24),
)
# Half-way between neighbours of the map, in values of 0..255.
NEAR = 6
# What U and V are set to where they are not known.
MIDDLE = 0.5


def pose_kind(image: torch.Tensor) -> str:
    """image: [B, H, W, C >= 3] in 0..1"""
    rgb = image[..., :3].cpu()
    if float(rgb[..., 2].max()) <= 24.5 / 255:
        return IUV
    if float((_nearest(rgb)[0] <= NEAR).float().mean()) > 0.9:
        return COLOUR_MAPPED
    black, saturated = rgb.amax(-1) < 0.04, rgb.amax(-1) - rgb.amin(-1) > 0.5
    if float(black.float().mean()) > 0.6 and float((saturated | black).float().mean()) > 0.9:
        return OPENPOSE
    return OTHER


def empty_poses(image: torch.Tensor) -> list[int]:
    """The numbers of the pictures in which no pixel belongs to a body.

    image: [B, H, W, C >= 3] in 0..1, raw IUV
    """
    return ((image[..., 2] * 255).round() <= 0).flatten(1).all(1).nonzero()[:, 0].tolist()


def require_iuv(image: torch.Tensor, what: str = "The pose picture"):
    """image: [B, H, W, C >= 3] in 0..1. raises: ValueError for a picture that is not raw IUV"""
    kind = pose_kind(image)
    if kind != IUV:
        mend = "Convert it by DensePose to IUV" if kind == COLOUR_MAPPED else "Connect a raw IUV picture"
        raise ValueError(
            f"{what} is {kind}, not raw IUV DensePose, and does not tell by its blue channel which part of the body is where. "
            f"{mend}, or paint the region as a MASK."
        )


def to_iuv(image: torch.Tensor) -> torch.Tensor:
    """Raw IUV from a colour-mapped picture: the part index in blue; U and V, which the colours do not hold, in the middle.

    image: [B, H, W, C >= 3] in 0..1
    returns: [B, H, W, 3] in 0..1; raw IUV as it is
    raises: ValueError for other pictures
    """
    kind = pose_kind(image)
    if kind == IUV:
        return image[..., :3]
    if kind != COLOUR_MAPPED:
        raise ValueError(
            f"The picture is {kind}. Expected DensePose in the colours of viridis, as the preprocessor of the ControlNet auxiliary "
            "nodes draws it with the model 'Viridis (MagicAnimate)'. Other pictures do not hold the parts of the body by number."
        )
    _, index = _nearest(image[..., :3].cpu())
    body = (index > 0).float()
    return torch.stack([MIDDLE * body, MIDDLE * body, index / 255.0], -1)


def _nearest(rgb: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """How far the nearest colour of the map is, in values of 0..255, and its index: both [B, H, W]"""
    values = rgb.float() * 255
    nearest, index = torch.full(rgb.shape[:-1], float("inf")), torch.zeros(rgb.shape[:-1], dtype=torch.long)
    for number, colour in enumerate(VIRIDIS):
        distance = (values - torch.tensor(colour)).abs_().amax(-1)
        nearer = distance < nearest
        nearest[nearer], index[nearer] = distance[nearer], number
    return nearest, index
