"""A paper doll: a body, what it wears and a background, all drawn from one random generator."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pictures.part import LABELS

from .body import Body, random_body

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS
PATTERNS = ("plain", "stripes", "checks", "dots", "diagonals", "zigzag")
HEADWEAR = ("a cap", "a beanie", "a hat")
SHAPES = {
    FACE: ("smile", "open smile", "glasses"),
    HAIR: ("short hair", "long hair", "curly hair", "a bun", *HEADWEAR),
    UPPER: ("a t-shirt", "a long-sleeved shirt", "a tank top"),
    LOWER: ("trousers", "shorts", "a skirt"),
    WHOLE: ("a short dress", "a long dress", "an open coat"),
    SHOES: ("low shoes", "boots"),
}
# Light colours, which a caption can name.
BACKGROUNDS = {
    "white": (0.96, 0.96, 0.95), "grey": (0.80, 0.81, 0.83), "pink": (0.97, 0.78, 0.85), "yellow": (0.99, 0.92, 0.62),
    "green": (0.80, 0.92, 0.77), "blue": (0.75, 0.87, 0.97), "purple": (0.86, 0.80, 0.95), "turquoise": (0.70, 0.91, 0.88),
}
# The clothes' colours keep away from the background's, and the two of a pattern from each other, in RGB.
BACKGROUND_CONTRAST, PATTERN_CONTRAST = 0.30, 0.50
# Of those who have hair, most have one of these.
HAIR_COLOURS = (
    (0.16, 0.12, 0.11), (0.35, 0.21, 0.13), (0.58, 0.30, 0.14), (0.80, 0.58, 0.27), (0.72, 0.36, 0.18), (0.50, 0.48, 0.48),
)
SKINS = ((1.0, 0.88, 0.78), (0.97, 0.77, 0.61), (0.84, 0.60, 0.43), (0.66, 0.43, 0.29), (0.45, 0.28, 0.19))
EYE_COLOURS = ((0.20, 0.45, 0.75), (0.20, 0.52, 0.32), (0.47, 0.27, 0.13), (0.30, 0.20, 0.16))
# What clothes are dyed in, more or less.
COLOURS = (
    (0.85, 0.22, 0.24), (0.93, 0.42, 0.32), (0.95, 0.58, 0.22), (0.97, 0.77, 0.26), (0.62, 0.72, 0.26), (0.28, 0.60, 0.36),
    (0.14, 0.42, 0.33), (0.18, 0.60, 0.60), (0.32, 0.66, 0.85), (0.18, 0.42, 0.72), (0.14, 0.22, 0.44), (0.40, 0.33, 0.68),
    (0.62, 0.36, 0.66), (0.88, 0.36, 0.56), (0.58, 0.14, 0.26), (0.48, 0.30, 0.20), (0.76, 0.58, 0.40), (0.16, 0.16, 0.20),
    (0.42, 0.45, 0.50), (0.97, 0.96, 0.93),
)
PATTERN_SHARES = (0.25, 0.15, 0.15, 0.15, 0.15, 0.15)
PATTERNED = (UPPER, LOWER, WHOLE)
BROWN, ROSE, LIPS, WHITE = (0.22, 0.14, 0.11), (0.96, 0.42, 0.42), (0.78, 0.22, 0.26), (0.99, 0.99, 0.97)

Colour = tuple[float, float, float]


class Wear(NamedTuple):
    """One part as worn.

    shape: one of SHAPES of its label
    pattern: one of PATTERNS
    colours: RGB in 0..1; the second is that of the pattern, for a face that of the eyes; for a plain part the first again
    """

    shape: str
    pattern: str
    colours: tuple[Colour, Colour]

    @property
    def trim(self) -> Colour:
        """The colour of collars, hems, belts and bands."""
        return self.colours[1] if self.pattern != "plain" else shade(self.colours[0])

    @property
    def belt(self) -> Colour:
        return shade(self.colours[0], 0.5)

    @property
    def line(self) -> Colour:
        """The colour of folds, seams and strands."""
        return shade(self.colours[0], 0.22)

    @property
    def button(self) -> Colour:
        return self.colours[1] if self.pattern != "plain" else WHITE

    @property
    def sole(self) -> Colour:
        return (0.97, 0.96, 0.93) if light(self.colours[0]) < 0.8 else shade(self.colours[0])


@dataclass(frozen=True)
class Background:
    name: str

    @property
    def colours(self) -> tuple[Colour, Colour]:
        """The second is that of the shadow on the ground."""
        colour = BACKGROUNDS[self.name]
        return colour, tuple(0.92 * value for value in colour)


@dataclass(frozen=True)
class Doll:
    body: Body
    wears: dict[str, Wear]
    background: Background

    @property
    def caption(self) -> str:
        """What a caption of DeepFashion-MultiModal would say: shapes, and neither colours nor patterns of the clothes."""
        clothes = [self.wears[label].shape for label in (UPPER, LOWER, WHOLE, SHOES) if label in self.wears]
        return (
            f"a person with {self.wears[HAIR].shape}, in {', '.join(clothes[:-1])} and {clothes[-1]}, "
            f"on a {self.background.name} background"
        )


def random_doll(rng: np.random.Generator, fixed: Mapping[str, Wear] = MappingProxyType({})) -> Doll:
    """A random figure. fixed: what it wears for certain, by label"""
    background = Background(str(rng.choice(list(BACKGROUNDS))))
    rng.random()  # once a background's pattern: the figures of a seed stay what they were
    whole = fixed[WHOLE].shape if WHOLE in fixed else rng.choice([None, *SHAPES[WHOLE]], p=(0.4, 0.15, 0.15, 0.3))
    if UPPER in fixed or LOWER in fixed:
        whole = "an open coat" if WHOLE in fixed or whole == "an open coat" else None
    labels = [label for label in LABELS if label != WHOLE or whole]
    if whole and whole != "an open coat":
        labels = [label for label in labels if label not in (UPPER, LOWER)]
    drawn = {label: random_wear(rng, label, background, whole if label == WHOLE else None) for label in labels}
    return Doll(random_body(rng), {label: fixed.get(label, wear) for label, wear in drawn.items()}, background)


def random_wear(rng: np.random.Generator, label: str, background: Background, shape: str | None = None) -> Wear:
    shape = str(shape or rng.choice(SHAPES[label]))
    if label == FACE:
        tone = rng.uniform(0, len(SKINS) - 1)
        skin = mix(SKINS[int(tone)], SKINS[int(tone) + 1], tone % 1)
        return Wear(shape, "plain", (skin, EYE_COLOURS[rng.integers(len(EYE_COLOURS))]))
    avoid = background.colours
    hair = _near(rng, HAIR_COLOURS[rng.integers(len(HAIR_COLOURS))], 0.05)
    if label == HAIR and shape not in HEADWEAR and rng.uniform() < 0.75:
        return Wear(shape, "plain", (hair, hair))
    first = _random_colour(rng, avoid)
    if label == HAIR:
        return Wear(shape, "plain", (first, hair if shape in HEADWEAR else first))
    pattern = str(rng.choice(PATTERNS, p=PATTERN_SHARES)) if label in PATTERNED else "plain"
    return Wear(shape, pattern, (first, first if pattern == "plain" else _random_colour(rng, avoid, first)))


def _random_colour(rng: np.random.Generator, avoid: tuple[Colour, ...], partner: Colour | None = None) -> Colour:
    while True:
        colour = _near(rng, COLOURS[rng.integers(len(COLOURS))], 0.07)
        if all(math.dist(colour, other) >= BACKGROUND_CONTRAST for other in avoid) and (
            partner is None or math.dist(colour, partner) >= PATTERN_CONTRAST
        ):
            return colour


def _near(rng: np.random.Generator, colour: Colour, spread: float) -> Colour:
    return tuple(float(value) for value in np.clip(np.add(colour, rng.uniform(-spread, spread, 3)), 0, 1))


def mix(a: Colour, b: Colour, t: float) -> Colour:
    return tuple(float((1 - t) * x + t * y) for x, y in zip(a, b))


def light(colour: Colour) -> float:
    return 0.3 * colour[0] + 0.6 * colour[1] + 0.1 * colour[2]


def shade(colour: Colour, amount: float = 0.35) -> Colour:
    """A colour for details on a plain part: darker, or lighter where it is dark already."""
    return mix(colour, (0.08, 0.06, 0.10) if light(colour) > 0.3 else (1.0, 0.98, 0.94), amount)
