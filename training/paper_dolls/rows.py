"""The rows of the evaluation's table: which figures they are measured on, what is left out, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from ..dolls.measure import colour_error, find_figure, overlap, seen
from ..dolls.rows import CONDITIONS as ALL_CONDITIONS
from ..dolls.rows import figures as held_out
from ..dolls.rows import labels_of, mean_colours
from .figure import PATTERNS, random_doll
from .measure import PATTERNED, SMALLEST_PATTERN, SMALLEST_REGION, find_pattern, palette
from .pairs import Pair


class Measured(NamedTuple):
    """Means over the parts that references were given for, or over the first three.

    colour: CIEDE2000 from the nearest of the part's colours, so that it says little of a pattern; pattern: share of clothes
    with the right one; pose: overlap of figures
    """

    colour: float
    pattern: float
    pose: float | None
    figures: int


# These draw no more of a face than its colour.
CONDITIONS = tuple(condition for condition in ALL_CONDITIONS if condition.name != "all references")


def figures(count: int, wears_all: bool) -> list[Pair]:
    return held_out(count, wears_all, Pair)


def measure(pairs: list[Pair], count: int, draw: Callable[[Pair], np.ndarray]) -> Measured:
    colours, patterns, poses = [], [], []
    for pair in pairs:
        image, true = draw(pair), pair.drawing
        poses.append(overlap(find_figure(image, pair.doll.background), true.figure > 0.5))
        for label in labels_of(pair, count):
            region, wear = seen(true.regions[label]), pair.doll.wears[label]
            if region.sum() >= SMALLEST_REGION:
                colours.append(colour_error(image, region, palette(label, wear)))
            if label in PATTERNED and region.sum() >= SMALLEST_PATTERN:
                patterns.append(find_pattern(image, region, pair.doll, pair.view) == wear.pattern)
    return Measured(float(np.mean(colours)), float(np.mean(patterns)), float(np.mean(poses)), len(pairs))


def measure_mean_colour(pairs: list[Pair], count: int) -> Measured:
    guesses = mean_colours(random_doll)
    errors, patterns = [], []
    for pair in pairs:
        regions = pair.drawing.regions
        for label in labels_of(pair, count):
            size = seen(regions[label]).sum()
            if size >= SMALLEST_REGION:
                guess = rgb2lab(guesses[label][None, None])[0]
                errors.append(float(np.min(deltaE_ciede2000(guess, palette(label, pair.doll.wears[label])))))
            if label in PATTERNED and size >= SMALLEST_PATTERN:
                patterns.append(pair.doll.wears[label].pattern == PATTERNS[0])
    return Measured(float(np.mean(errors)), float(np.mean(patterns)), None, len(pairs))
