"""From a label map, which says by number what a photograph shows where, to the six labelled parts."""

from __future__ import annotations

import torch

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
    pixels = (image[..., :3].cpu().clamp(0, 1) * 255).round().long()
    count = len(SCHEMES[scheme])
    grey = (pixels == pixels[..., :1]).all()
    if grey and pixels.max() < count:
        return pixels[..., 0]
    distance = (pixels[..., None, :] - _voc_palette(count)).abs().amax(-1)
    nearest, number = distance.min(-1)
    if nearest.max() > 0:
        place = (nearest > 0).nonzero()[0].tolist()
        raise ValueError(
            f"The label map has the colour {pixels[tuple(place)].tolist()} at row {place[1]}, column {place[2]}: expected the "
            f"class numbers 0..{count - 1} of {scheme} as grey values, or their colours in the PASCAL VOC palette. Save it as PNG, "
            "without smoothing and unscaled."
        )
    return number


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
        parts[label] = make_part(label, images[shown], mask[shown]) if shown.any() else None
    return parts


def _voc_palette(count: int) -> torch.Tensor:
    """[count, 3]: the bits of the number, dealt out to red, green and blue from the highest bit on."""
    palette = torch.zeros(count, 3, dtype=torch.long)
    for number in range(count):
        for place in range(8):
            for channel in range(3):
                palette[number, channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return palette
