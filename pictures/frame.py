"""How the pictures of a part, and its masks with them, come to the frame of the appearance encoder."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from .crop import WHOLE, Box
from .part import Part, mask_or_alpha


def fit_to_frame(part: Part, width: int, height: int, fit: str = "stretch") -> tuple[torch.Tensor, torch.Tensor]:
    """Brings the pictures of a part and their masks to the frame that the encoder sees, the mask as the picture.

    Bicubic, with premultiplied alpha; then composited on white.

    width, height: in pixels
    fit: `stretch`, as the release does; `pad`: the whole picture in the middle, white beside it; `crop`: as much of the
        picture as has the frame's shape, with the part in the middle as far as there is picture
    returns: pictures [B, height, width, 3] in 0..1, masks [B, height, width] in 0..1
    """
    images, masks = [], []
    for picture, mask in zip(part.image, mask_or_alpha(part.image, part.mask)):
        box, area = _fit(picture.shape[1] / picture.shape[0], mask, width, height, fit)
        images.append(_framed(picture, box, area, width, height, 1.0))
        masks.append(_framed(mask, box, area, width, height, 0.0))
    image, mask = torch.stack(images), torch.stack(masks)
    if image.shape[-1] == 4:
        image, alpha = image[..., :3], image[..., 3:]
        image = image * alpha + (1 - alpha)
    return image, mask


def _fit(aspect: float, mask: torch.Tensor, width: int, height: int, fit: str) -> tuple[Box, tuple[int, int, int, int]]:
    """Which box of the picture comes to which area of the frame.

    aspect: the picture's width over its height
    returns: the box, as fractions of the picture's sides, and the area: left, top, right, bottom in pixels
    """
    frame = width / height
    if fit == "stretch":
        return WHOLE, (0, 0, width, height)
    if fit == "pad":
        inner = max(1, round(min(width, height * aspect))), max(1, round(min(height, width / aspect)))
        left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
        return WHOLE, (left, top, left + inner[0], top + inner[1])
    if fit != "crop":
        raise ValueError(f"fit is '{fit}'; expected stretch, pad or crop.")
    shown = mask > 0
    left, right = _span(shown.any(0), min(1.0, frame / aspect))
    top, bottom = _span(shown.any(1), min(1.0, aspect / frame))
    return Box(left, top, right, bottom), (0, 0, width, height)


def _span(shown: torch.Tensor, side: float) -> tuple[float, float]:
    """Begin and end of a span of length `side` in 0..1 that has the middle of what is shown in its own middle, if it can."""
    pixels = shown.nonzero()
    middle = float(pixels[0] + pixels[-1] + 1) / (2 * len(shown))
    begin = min(max(middle - side / 2, 0.0), 1.0 - side)
    return begin, begin + side


def _framed(picture: torch.Tensor, box: Box, area: tuple[int, int, int, int], width: int, height: int, fill: float) -> torch.Tensor:
    """[height, width] or [height, width, C] in 0..1: the box of the picture in its area, and `fill` beside it"""
    left, top, right, bottom = area
    out = torch.full((height, width, *picture.shape[2:]), fill)
    out[top:bottom, left:right] = resize_bicubic(picture, right - left, bottom - top, box)
    return out


def resize_bicubic(picture: torch.Tensor, width: int, height: int, box: Box = WHOLE) -> torch.Tensor:
    """[H, W] or [H, W, C] in 0..1, through 8 bits: Pillow's filter is the one that the release was trained with."""
    image = Image.fromarray(picture.cpu().float().clamp(0, 1).mul_(255).round_().byte().numpy())
    sides = (box.left * image.width, box.top * image.height, box.right * image.width, box.bottom * image.height)
    resized = image.resize((width, height), Image.Resampling.BICUBIC, box=sides)
    return torch.from_numpy(np.array(resized, dtype=np.float32)).div_(255.0)
