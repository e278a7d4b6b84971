"""What a drawn paper doll shows of what was asked for. The generator knows where each part truly is."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import binary_erosion
from skimage.color import deltaE_ciede2000, rgb2lab

from .figure import FACE, LOWER, MOUTH, PATTERNS, UPPER, WHOLE, Background, Doll, View, Wear
from .pattern import PATTERN_PERIOD, pattern_amount

PATTERNED = (UPPER, LOWER, WHOLE)
# Smaller regions, in pixels, say too little.
SMALLEST_REGION, SMALLEST_PATTERN = 40, 200
# In Lab: below it a region counts as plain; and above it a pixel is not the background's.
PLAIN_SPREAD, FIGURE_DISTANCE = 9.0, 12.0
# The correlation that a pattern must have at least.
LIKE = 0.5


def seen(region: np.ndarray) -> np.ndarray:
    """The pixels that a part covers, without its edge. [H, W] in 0..1 -> [H, W] bool"""
    return binary_erosion(region > 0.9)


def palette(label: str, wear: Wear) -> np.ndarray:
    """The colours that a part is drawn in, in Lab. [C, 3]"""
    colours = [*wear.colours, MOUTH] if label == FACE else list(dict.fromkeys(wear.colours))
    return rgb2lab(np.array(colours)[None])[0]


def colour_error(image: np.ndarray, region: np.ndarray, colours: np.ndarray) -> float:
    """Mean CIEDE2000 of a region's pixels from the nearest of the part's colours.

    image: [H, W, 3] uint8; region: [H, W] bool; colours: [C, 3] in Lab
    """
    lab = rgb2lab(image[region][None])[0]
    return float(np.min([deltaE_ciede2000(lab, colour[None]) for colour in colours], axis=0).mean())


def find_pattern(image: np.ndarray, region: np.ndarray, doll: Doll, view: View) -> str:
    """Which of PATTERNS a region shows, wherever it begins, or "none".

    Its strongest colour axis is compared with every pattern, moved by eighths of a period.
    """
    lab = rgb2lab(image[region][None])[0]
    lab = lab - lab.mean(0)
    axis = np.linalg.svd(lab, full_matrices=False)[2][0]
    signal = lab @ axis
    if signal.std() < PLAIN_SPREAD:
        return "plain"
    y, x = np.nonzero(region)
    neck, down = doll.body.joints["neck"], doll.body.down
    across = np.array([down[1], -down[0]])
    best = {}
    for pattern in PATTERNS[1:]:
        moves = [(i / 8, j / 8) for i in range(8) for j in range(8 if pattern != "stripes" else 1)]
        amounts = np.stack([
            pattern_amount(pattern, x + 0.5, y + 0.5, view, neck + PATTERN_PERIOD * (i * down + j * across), down)
            for i, j in moves
        ])
        amounts -= amounts.mean(1, keepdims=True)
        norms = np.linalg.norm(amounts, axis=1) * np.linalg.norm(signal) + 1e-9
        best[pattern] = float(np.max(np.abs(amounts @ signal) / norms))
    found = max(best, key=best.get)
    return found if best[found] >= LIKE else "none"


def find_figure(image: np.ndarray, background: Background) -> np.ndarray:
    """The pixels that have none of the background's colours. [H, W] bool"""
    lab = rgb2lab(image)
    colours = rgb2lab(np.array(background.colours)[None])[0]
    first, second = colours
    # Between the two colours of a pattern lie those of its edges.
    mixed = [first + t * (second - first) for t in (0.0, 0.5, 1.0)]
    return np.min([deltaE_ciede2000(lab, colour[None, None]) for colour in mixed], axis=0) > FIGURE_DISTANCE


def overlap(a: np.ndarray, b: np.ndarray) -> float:
    """Intersection over union of two masks."""
    return float((a & b).sum() / max((a | b).sum(), 1))


def change(a: np.ndarray, b: np.ndarray, region: np.ndarray) -> float:
    """Mean CIEDE2000 between two pictures inside a region."""
    return float(deltaE_ciede2000(rgb2lab(a[region][None]), rgb2lab(b[region][None])).mean())
