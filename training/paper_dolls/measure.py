"""What a drawn paper doll shows of what was asked for. The generator knows where each part truly is."""

from __future__ import annotations

import numpy as np
from skimage.color import rgb2lab

from .figure import FACE, LOWER, MOUTH, PATTERNS, UPPER, WHOLE, Doll, View, Wear
from .pattern import PATTERN_PERIOD, pattern_amount

PATTERNED = (UPPER, LOWER, WHOLE)
# Smaller regions, in pixels, say too little.
SMALLEST_REGION, SMALLEST_PATTERN = 40, 200
PLAIN_SPREAD = 9.0  # in Lab: below it a region counts as plain
# The correlation that a pattern must have at least.
LIKE = 0.5


def palette(label: str, wear: Wear) -> np.ndarray:
    """The colours that a part is drawn in, in Lab. [C, 3]"""
    colours = [*wear.colours, MOUTH] if label == FACE else list(dict.fromkeys(wear.colours))
    return rgb2lab(np.array(colours)[None])[0]


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
