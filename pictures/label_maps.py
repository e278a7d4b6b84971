"""From a label map, which says by number what a photograph shows where, to the six labelled parts."""

from __future__ import annotations

import numpy as np
import torch
from einops import rearrange

from .part import LABELS, Part, make_part

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS

# The classes of the three datasets that human parsers are trained on, by their numbers.
SCHEMES = {
    "ATR": (
        "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe", "right-shoe",
        "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
    ),
    "LIP": (
        "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "jumpsuits",
        "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
    ),
    "CIHP": (
        "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "torso-skin",
        "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
    ),
}
# Bare skin, gloves, socks and bags belong to no label.
CLASSES = {
    FACE: ("face", "sunglasses"),
    HAIR: ("hair", "hat"),
    UPPER: ("upper-clothes", "coat", "scarf"),
    LOWER: ("pants", "skirt", "belt"),
    WHOLE: ("dress", "jumpsuits"),
    SHOES: ("left-shoe", "right-shoe"),
}


def read_label_map(image: torch.Tensor, scheme: str) -> torch.Tensor:
    """A label map as a picture: class numbers as grey values 0..19, or in the colours of the PASCAL VOC palette.

    image: [B, H, W, 3 or 4] in 0..1
    returns: [B, H, W], numbers of SCHEMES[scheme]
    raises: ValueError for values that are neither
    """
    values = image[..., :3].cpu().clamp(0, 1).mul_(255).round_().byte()
    red, green, blue = rearrange(values, "b h w rgb -> rgb b h w")
    count = len(SCHEMES[scheme])
    if torch.equal(red, green) and torch.equal(red, blue) and red.max() < count:
        return red.long()
    numbers = torch.full(red.shape, -1)
    for number, (r, g, b) in enumerate(_voc_palette(count)):
        numbers[(red == r) & (green == g) & (blue == b)] = number
    unknown = numbers < 0
    if unknown.any():
        picture, row, column = np.unravel_index(int(unknown.byte().argmax()), unknown.shape)
        raise ValueError(
            f"The label map has the colour {values[picture, row, column].tolist()} at row {row}, column {column}: expected the "
            f"class numbers 0..{count - 1} of {scheme} as grey values, or their colours in the PASCAL VOC palette. Save it as PNG, "
            "without smoothing and unscaled."
        )
    return numbers


def parts_of(images: torch.Tensor, label_map: torch.Tensor, scheme: str, smallest: float) -> dict[str, Part | None]:
    """The six parts; None where the photograph shows none.

    images: [B, H, W, 3 or 4] in 0..1
    label_map: [B, H', W'], numbers of SCHEMES[scheme]
    smallest: share of the picture, 0..1, below which a part is taken for an error
    """
    if len(label_map) != len(images):
        raise ValueError(f"Got {len(images)} pictures and {len(label_map)} label maps: give one map for each picture.")
    parts = {}
    for label in LABELS:
        numbers = [SCHEMES[scheme].index(name) for name in CLASSES[label] if name in SCHEMES[scheme]]
        mask = torch.isin(label_map, torch.tensor(numbers)).float()
        shown = mask.mean((1, 2)) >= max(smallest, 1e-9)
        if not shown.any():
            parts[label] = None
        else:  # no copy of the pictures where all show it
            parts[label] = make_part(label, images if shown.all() else images[shown], mask[shown])
    return parts


def _voc_palette(count: int) -> list[list[int]]:
    """For each number red, green and blue in 0..255: the number's bits, dealt out to them from the highest bit on."""
    palette = [[0, 0, 0] for _ in range(count)]
    for number in range(count):
        for bit in range(8):
            for channel in range(3):
                palette[number][channel] |= ((number >> (3 * bit + channel)) & 1) << (7 - bit)
    return palette
