"""A second look at a place of a picture: it is cropped and enlarged, drawn again elsewhere, and pasted back."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import NamedTuple

import comfy.utils
import torch

from .crop import Crop, crop_box
from .part import require_finite
from .sliding import blurred, unseen

# Pixels for each position of a latent: sides that are none of its multiples would be cut by VAE Encode.
MULTIPLE = 8
LARGEST = 16384
SHOWN = 0.5
METHOD = "lanczos"


class Detail(NamedTuple):
    """image: [B, h, w, C] in 0..1; mask: [B or fewer, h, w] in 0..1; crop: where in the whole picture they lie"""

    image: torch.Tensor
    mask: torch.Tensor
    crop: Crop


def crop_for_detail(
    image: torch.Tensor, mask: torch.Tensor | None, box: tuple[int, int, int, int], factor: float, padding: float
) -> Detail:
    """Crops and enlarges a picture, by the host's Lanczos filter. The crop is made larger, as far as the picture goes, until its
    enlarged sides are multiples of 8.

    image: [B, H, W, C] in 0..1
    mask: [B', H', W'] in 0..1, of any size, of which the crop has what is above 0.5 in any of them; None: the box. More masks than
        pictures become one
    box: x, y, width, height in pixels; a width or height of 0: as far as the picture goes
    factor: how many times larger the crop is
    padding: how much more of the picture there is around mask or box, as a share of the longer side
    raises: ValueError for a mask that is nowhere above 0.5, a box outside of the picture, and sides above 16384 pixels
    """
    require_finite(image, "The picture")
    size = image.shape[2], image.shape[1]
    crop = crop_box(*box, size) if mask is None else _around(mask).of(*size)
    pad = round(padding * max(crop.width, crop.height))
    crop = crop_box(crop.x - pad, crop.y - pad, crop.width + 2 * pad, crop.height + 2 * pad, size)
    x, width, w = _grown(crop.x, crop.width, size[0], factor)
    y, height, h = _grown(crop.y, crop.height, size[1], factor)
    if max(w, h) > LARGEST:
        raise ValueError(
            f"The crop of {width}x{height} pixels would be {w}x{h} large; {LARGEST} is the most. Lower the factor {factor:g}."
        )
    crop = Crop(x, y, width, height, *size)
    if mask is None:
        shown = torch.ones(1, h, w)
    else:
        shown = _of_pictures(mask, len(image))[:, None].float().clamp(0.0, 1.0)
        shown = _cut(_resized(shown, *size, "bilinear"), crop)
        shown = _resized(shown, w, h, "bilinear")[:, 0]
    return Detail(_resized(_cut(image.movedim(-1, 1), crop), w, h, METHOD).movedim(1, -1), shown, crop)


def paste_detail(
    image: torch.Tensor, detail: torch.Tensor, crop: Crop, mask: torch.Tensor | None = None, feather: int = 0
) -> torch.Tensor:
    """Puts a crop that was drawn again back into the picture. All other pixels stay as they are, to the bit.

    image: [B, H, W, C] in 0..1, the whole picture, or the same in another size
    detail: [B', h, w, C'] in 0..1, of any size
    mask: [B'', h', w'] in 0..1, where in the crop the detail is taken; None: everywhere. More masks than pictures become one
    feather: over how many pixels of the whole picture detail and picture blend, inside of the crop: to its middle at most. Sides of
        the crop on the border of the picture have nothing to blend with
    returns: [max(B, B'), H, W, C]; an alpha channel is the picture's
    raises: ValueError for a batch without a mask, and for values that are not finite
    """
    require_finite(detail, "The detail")
    count = max(len(image), len(detail))
    crop = crop.of(image.shape[2], image.shape[1])
    detail = _resized(detail[..., :3].movedim(-1, 1), crop.width, crop.height, METHOD).movedim(1, -1).to(image)
    feather = min(feather, crop.width // 2, crop.height // 2)  # more, and the detail would be nowhere whole
    weight = _ramp(crop, feather)[None]
    if mask is not None:
        require_finite(mask, "The mask")
        mask = _of_pictures(mask, count)[:, None].float().cpu().clamp(0.0, 1.0)
        mask = _resized(mask, crop.width, crop.height, "bilinear")[:, 0]
        weight = weight * (blurred(mask, feather / 2, unseen) if feather else mask)
    image = comfy.utils.repeat_to_batch_size(image, count).clone()
    detail, weight = (comfy.utils.repeat_to_batch_size(x, count) for x in (detail, weight.to(image)))
    place = image[:, crop.y:crop.y + crop.height, crop.x:crop.x + crop.width, :3]
    place.copy_(torch.lerp(place, detail, weight[..., None].expand_as(place)))
    return image


def _of_pictures(masks: torch.Tensor, count: int) -> torch.Tensor:
    """The masks of so many pictures. Of more masks than that, which one is whose is not known: what is in any of them.

    masks: [B, H, W]
    raises: ValueError for an empty batch
    """
    if not len(masks):
        raise ValueError("The mask is a batch of none. Connect another, or none: then all of the detail is taken.")
    return masks if len(masks) <= count else masks.amax(0, keepdim=True)


def _around(mask: torch.Tensor) -> Crop:
    """What of a mask [B, H, W] is above 0.5, in any of the batch."""
    require_finite(mask, "The mask")
    shown = (mask > SHOWN).any(0)
    if not shown.any():
        raise ValueError(
            f"The mask is nowhere above {SHOWN}, so there is nothing to crop. Expected 1 where the detail is. The pose may not "
            "show that part of the body, or a detector found nothing: connect another mask, or none, and choose a box."
        )
    columns, rows = shown.any(0).nonzero()[:, 0].tolist(), shown.any(1).nonzero()[:, 0].tolist()
    width, height = columns[-1] + 1 - columns[0], rows[-1] + 1 - rows[0]
    return Crop(columns[0], rows[0], width, height, mask.shape[2], mask.shape[1])


def _grown(begin: int, side: int, of: int, factor: float) -> tuple[int, int, int]:
    """A side of a crop that is made larger, as far as the picture goes, until its enlarged length is a multiple of 8: where it
    begins, its length, and the enlarged length."""
    times = Fraction(factor).limit_denominator(1000)
    enlarged = MULTIPLE * math.ceil(side * times / MULTIPLE)
    grown = min(of, math.ceil(enlarged / times))
    begin = min(max(0, begin - (grown - side) // 2), of - grown)
    return begin, grown, MULTIPLE * max(1, round(grown * times / MULTIPLE))


def _cut(x: torch.Tensor, crop: Crop) -> torch.Tensor:
    """[B, C, H, W] -> [B, C, h, w]"""
    return x[:, :, crop.y:crop.y + crop.height, crop.x:crop.x + crop.width]


def _resized(x: torch.Tensor, width: int, height: int, method: str) -> torch.Tensor:
    """[B, C, H, W] -> [B, C, height, width]: as it is where it has this size, to the bit"""
    if tuple(x.shape[-2:]) == (height, width):
        return x
    return comfy.utils.common_upscale(x, width, height, method, "disabled")


def _ramp(crop: Crop, feather: int) -> torch.Tensor:
    """How far each pixel of a crop is taken: less towards its sides, but those on the picture's border. [height, width] in 0..1"""

    def side(begin: int, length: int, of: int) -> torch.Tensor:
        inside = torch.arange(length) + 0.5
        before = inside if begin > 0 else torch.full_like(inside, math.inf)
        after = length - inside if begin + length < of else torch.full_like(inside, math.inf)
        return (torch.minimum(before, after) / max(feather, 1)).clamp(max=1.0) if feather else torch.ones(length)

    return torch.minimum(
        side(crop.y, crop.height, crop.of_height)[:, None], side(crop.x, crop.width, crop.of_width)[None]
    )
