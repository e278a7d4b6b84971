"""The rows of the evaluation's table: which figures they are measured on, what is left out, and what is measured of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from skimage.color import deltaE_ciede2000, rgb2lab

from .figure import FACE, HAIR, LABELS, LOWER, PATTERNED, PATTERNS, SHOES, UPPER, WHOLE, random_doll
from .measure import SMALLEST_PATTERN, SMALLEST_REGION, Measured, measure, palette, seen
from .pairs import Pair

# Never trained on: training takes its figures from other seeds.
HELD_OUT_SEED = 1_000_003
# In this order references are added, as far as the figure wears them.
ORDER = (UPPER, WHOLE, LOWER, HAIR, FACE, SHOES)


class Condition(NamedTuple):
    """A row of the table: how many references, and what is left out or done otherwise.

    six: drawn for figures that wear all six parts
    """

    name: str
    references: int
    six: bool = False
    parts: bool = True
    images: bool = True
    mask_mode: str = "zero"
    masks: bool = True
    labels: bool = True

    @property
    def measured(self) -> int:
        """How many parts are looked at, in ORDER."""
        return self.references or 3


CONDITIONS = (
    Condition("1 reference", 1),
    Condition("2 references", 2),
    Condition("3 references", 3),
    Condition("4 references", 4),
    Condition("all references", len(LABELS)),
    Condition("6 references, other figures", len(LABELS), six=True),
    Condition("prompt only", 0, parts=False, images=False),
    Condition("3, whole pictures for masks", 3, masks=False),
    Condition("3, without labels", 3, labels=False),
    Condition("3, image tokens only", 3, parts=False),
    Condition("3, without image tokens", 3, images=False),
    Condition("3, mask mode drop", 3, mask_mode="drop"),
)


def figures(count: int, wears_all: bool) -> list[Pair]:
    """Held-out pairs. wears_all: those with all six parts, under an open coat"""
    pairs = (Pair(HELD_OUT_SEED, i) for i in range(100 * count))
    return [pair for pair, _ in zip((p for p in pairs if (len(p.doll.wears) == len(LABELS)) or not wears_all), range(count))]


def labels_of(pair: Pair, count: int) -> list[str]:
    return [label for label in ORDER if label in pair.doll.wears][:count]


def measure_parts(pairs: list[Pair], count: int, draw: Callable[[Pair], np.ndarray]) -> Measured:
    """What `measure` says of the first parts in ORDER."""
    return measure(pairs, draw, lambda pair: labels_of(pair, count))


def mean_colours() -> dict[str, np.ndarray]:
    """The mean first colour of each part over many figures: a guess without having seen it."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    dolls = [random_doll(rng) for _ in range(2000)]
    return {label: np.mean([doll.wears[label].colours[0] for doll in dolls if label in doll.wears], 0) for label in LABELS}


def measure_mean_colour(pairs: list[Pair], count: int) -> Measured:
    guesses = mean_colours()
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
    return Measured(float(np.mean(errors)), float(np.mean(patterns)), None, None, len(pairs))
