"""What a drawn doll shows of what was asked for. The generator knows where each part truly is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import binary_erosion
from skimage.color import deltaE_ciede2000, rgb2lab

from .body import SIDES, View
from .canvas import coverage
from .figure import BROWN, EYE_COLOURS, FACE, LIPS, PATTERNED, PATTERNS, SHOES, WHITE, Background, Doll, Wear
from .head import blush, eye, mouth
from .pairs import Pair
from .pattern import PATTERN_PERIOD, pattern_amount

# Smaller regions, in pixels, say too little.
SMALLEST_REGION, SMALLEST_PATTERN, SMALLEST_FEATURE = 160, 800, 8
# A region counts as plain if this share of its pixels, the rest being trimmings and folds, is as near to their median in Lab.
PLAIN_SHARE, PLAIN_SPREAD = 0.8, 12.0
# Fewer are enough where no pattern is found: a coat shows its lapels and its inside.
TRIMMED_SHARE = 0.4
# In Lab: above it a pixel is not the background's; and below it a feature has its colour.
FIGURE_DISTANCE, FEATURE_DISTANCE = 12.0, 18.0
# The correlation that a pattern must have at least.
LIKE = 0.5
# In these a pattern does not change along some direction: moves along the spine are enough.
STRAIGHT = ("stripes", "diagonals")


class Measured(NamedTuple):
    """Means over parts of some pictures; None where nothing of the kind was looked at.

    colour: CIEDE2000 from the nearest of the part's colours, so that it says little of a pattern; pattern: share of clothes
    with the right one; pose: overlap of figures; features: share of eyes and mouths that are where they belong
    figures: how many pictures
    """

    colour: float | None
    pattern: float | None
    pose: float | None
    features: float | None
    figures: int


def measure(
    pairs: Sequence[Pair], draw: Callable[[Pair], np.ndarray],
    labels_of: Callable[[Pair], Iterable[str]] = lambda pair: pair.doll.wears,
) -> Measured:
    """draw: gives the picture of a pair that is looked at, [H, W, 3] uint8; labels_of: the parts that are looked at"""
    colours, patterns, poses, features = [], [], [], []
    for pair in pairs:
        doll, image, true = pair.doll, draw(pair), pair.drawing
        poses.append(overlap(find_figure(image, doll.background), true.figure > 0.5))
        for label in labels_of(pair):
            wear = doll.wears[label]
            if label == FACE:
                features += find_features(image, doll, pair.view, true.regions[FACE]).values()
            region = seen(true.regions[label])
            if region.sum() >= SMALLEST_REGION:
                colours.append(colour_error(image, region, palette(label, wear)))
            if label in PATTERNED and region.sum() >= SMALLEST_PATTERN:
                patterns.append(find_pattern(image, region, doll, pair.view) == wear.pattern)
    means = (float(np.mean(values)) if values else None for values in (colours, patterns, poses, features))
    return Measured(*means, len(pairs))


def seen(region: np.ndarray) -> np.ndarray:
    """The pixels that a part covers, without its edge. [H, W] in 0..1 -> [H, W] bool"""
    return binary_erosion(region > 0.9)


def palette(label: str, wear: Wear) -> np.ndarray:
    """The colours that a part is drawn in, in Lab, but those of small details. [C, 3]"""
    more = {FACE: (LIPS, WHITE, BROWN, blush(wear.colours[0])), SHOES: (wear.trim, wear.sole)}.get(label, (wear.trim, wear.belt))
    return _lab(*dict.fromkeys([*wear.colours, *more]))


def colour_error(image: np.ndarray, region: np.ndarray, colours: np.ndarray) -> float:
    """Mean CIEDE2000 of a region's pixels from the nearest of the part's colours.

    image: [H, W, 3] uint8; region: [H, W] bool; colours: [C, 3] in Lab
    """
    lab = rgb2lab(image[region][None])[0]
    return float(np.min([deltaE_ciede2000(lab, colour[None]) for colour in colours], axis=0).mean())


def find_pattern(image: np.ndarray, region: np.ndarray, doll: Doll, view: View) -> str:
    """Which of PATTERNS a region shows, wherever it begins, or "none".

    It is compared with every pattern, moved by eighths of a period, each along the colour axis that varies most with it; which of
    the two colours is the ground does not count.
    """
    lab = rgb2lab(image[region][None])[0]
    lab = lab - lab.mean(0)
    near = np.mean(np.linalg.norm(lab - np.median(lab, 0), axis=1) < PLAIN_SPREAD)
    if near > PLAIN_SHARE:
        return "plain"
    y, x = np.nonzero(region)
    frame, best = doll.body.torso, {}
    for pattern in PATTERNS[1:]:
        moves = [(i / 8, j / 8) for i in range(12 if pattern == "diagonals" else 8) for j in range(1 if pattern in STRAIGHT else 8)]
        amounts = np.stack([
            pattern_amount(
                pattern, x + 0.5, y + 0.5, view,
                frame._replace(origin=frame.origin + PATTERN_PERIOD * (i * frame.down + j * frame.right)),
            )
            for i, j in moves
        ])
        amounts -= amounts.mean(1, keepdims=True)
        axes = amounts @ lab
        axes /= np.linalg.norm(axes, axis=1, keepdims=True) + 1e-9
        signals = axes @ lab.T
        norms = np.linalg.norm(amounts, axis=1) * np.linalg.norm(signals, axis=1) + 1e-9
        best[pattern] = float(np.max((amounts * signals).sum(1) / norms))
    found = max(best, key=best.get)
    if best[found] >= LIKE:
        return found
    return "plain" if near > TRIMMED_SHARE else "none"


def find_features(image: np.ndarray, doll: Doll, view: View, face: np.ndarray) -> dict[str, bool]:
    """Which of both eyes and the mouth are where they belong, in the reference's colours; those that are hidden are left out.

    A feature is there if the median colour of its place is near to its own, nearer than to the skin, to the white of the
    eyes, to the brows, and to the colours of others' eyes.

    image: [H, W, 3] uint8; face: [H, W] in 0..1, where the face is truly seen
    """
    wear = doll.wears[FACE]
    skin, own = wear.colours
    lips, teeth = mouth(doll.body, wear)
    shapes = {"mouth": (lips, teeth, LIPS)}
    for side, sign in SIDES.items():
        iris, *over_it = eye(doll.body, sign)
        shapes[f"{side} eye"] = [iris], over_it, own
    found = {}
    for name, (inside, outside, colour) in shapes.items():
        place = (face > 0.9) & (coverage(view, inside) > 0.9) & (coverage(view, outside) < 0.1)
        if place.sum() >= SMALLEST_FEATURE:
            colours = list(dict.fromkeys([colour, skin, WHITE, BROWN, *(() if name == "mouth" else EYE_COLOURS)]))
            median = np.median(rgb2lab(image[place][None])[0], 0)
            distances = deltaE_ciede2000(median[None], _lab(*colours))
            found[name] = bool(distances[0] < FEATURE_DISTANCE and distances.argmin() == 0)
    return found


def find_figure(image: np.ndarray, background: Background) -> np.ndarray:
    """The pixels that have none of the background's colours. [H, W] bool"""
    lab = rgb2lab(image)
    first, second = _lab(*background.colours)
    # Between the two colours lie those of the shadow's edge.
    mixed = [first + t * (second - first) for t in (0.0, 0.5, 1.0)]
    return np.min([deltaE_ciede2000(lab, colour[None, None]) for colour in mixed], axis=0) > FIGURE_DISTANCE


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def change(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> float:
    """Mean CIEDE2000 between two pictures inside a region."""
    return float(deltaE_ciede2000(rgb2lab(a[region][None]), rgb2lab(b[region][None])).mean())


def _lab(*colours) -> np.ndarray:
    return rgb2lab(np.array(colours)[None])[0]
