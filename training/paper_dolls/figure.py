"""A paper doll: a figure with a pose, a body shape and clothes, all drawn from one random generator.

Lengths are fractions of the figure's height. x grows to the right, y downwards, and the ground is at y = 1.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from pictures.part import LABELS

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS
PATTERNS = ("plain", "stripes", "checks", "dots")
SHAPES = {
    FACE: ("face",),
    HAIR: ("short hair", "long hair", "curly hair", "a cap", "a beanie"),
    UPPER: ("a t-shirt", "a long-sleeved shirt", "a tank top"),
    LOWER: ("trousers", "shorts", "a skirt"),
    WHOLE: ("a short dress", "a long dress", "an open coat"),
    SHOES: ("low shoes", "boots"),
}
MOUTH = (0.75, 0.25, 0.25)
# Light colours, which a caption can name.
BACKGROUNDS = {
    "white": (0.96, 0.96, 0.95), "grey": (0.74, 0.75, 0.77), "pink": (0.98, 0.80, 0.85), "yellow": (0.98, 0.93, 0.67),
    "green": (0.75, 0.91, 0.73), "blue": (0.70, 0.84, 0.97), "purple": (0.84, 0.76, 0.95), "orange": (0.99, 0.83, 0.64),
}
BACKGROUND_PATTERNS = ("plain", "striped", "dotted")
# The clothes' colours keep away from the background's, and the two of a pattern from each other, in RGB.
BACKGROUND_CONTRAST, PATTERN_CONTRAST = 0.30, 0.50

Colour = tuple[float, float, float]
Point = np.ndarray


class Wear(NamedTuple):
    """One part as worn.

    shape: one of SHAPES of its label
    pattern: one of PATTERNS
    colours: RGB in 0..1; the second is that of the pattern, for a face that of the eyes; for a plain part the first again
    """

    shape: str
    pattern: str
    colours: tuple[Colour, Colour]


@dataclass(frozen=True)
class Background:
    name: str
    pattern: str

    @property
    def colours(self) -> tuple[Colour, Colour]:
        colour = BACKGROUNDS[self.name]
        return colour, tuple(0.9 * value for value in colour) if self.pattern != "plain" else colour


@dataclass(frozen=True)
class Body:
    """Joints [2], and half widths of the limbs."""

    joints: dict[str, Point]
    head: float
    neck: float
    shoulder: float
    waist: float
    hip: float
    arm: float
    leg: float

    @property
    def down(self) -> Point:
        """The direction of the spine, from the neck to the hip, of length 1."""
        spine = self.joints["hip"] - self.joints["neck"]
        return spine / np.hypot(*spine)

    def path(self, side: str, *names: str) -> list[Point]:
        return [self.joints[f"{side} {name}"] for name in names]

    def foot(self, side: str) -> tuple[Point, Point]:
        """Ankle and toe."""
        ankle = self.joints[f"{side} ankle"]
        return ankle, ankle + np.array([0.04 * (1 if side == "left" else -1), 0.03])


class View(NamedTuple):
    """Where the figure stands in a picture: pixel = offset + scale * point."""

    width: int
    height: int
    scale: float
    offset: Point


@dataclass(frozen=True)
class Doll:
    body: Body
    wears: dict[str, Wear]
    background: Background

    @property
    def caption(self) -> str:
        """What a caption of DeepFashion-MultiModal would say: shapes, and neither colours nor patterns of the clothes."""
        clothes = [self.wears[label].shape for label in (UPPER, LOWER, WHOLE, SHOES) if label in self.wears]
        pattern = "" if self.background.pattern == "plain" else f"{self.background.pattern} "
        return (
            f"a person with {self.wears[HAIR].shape}, in {', '.join(clothes[:-1])} and {clothes[-1]}, "
            f"on a {pattern}{self.background.name} background"
        )


def random_doll(rng: np.random.Generator, fixed: Mapping[str, Wear] = MappingProxyType({})) -> Doll:
    """A random figure. fixed: what it wears for certain, by label"""
    background = Background(str(rng.choice(list(BACKGROUNDS))), str(rng.choice(BACKGROUND_PATTERNS, p=(0.6, 0.2, 0.2))))
    whole = fixed[WHOLE].shape if WHOLE in fixed else rng.choice([None, *SHAPES[WHOLE]], p=(0.4, 0.15, 0.15, 0.3))
    if UPPER in fixed or LOWER in fixed:
        whole = "an open coat" if WHOLE in fixed or whole == "an open coat" else None
    labels = [label for label in LABELS if label != WHOLE or whole]
    if whole and whole != "an open coat":
        labels = [label for label in labels if label not in (UPPER, LOWER)]
    drawn = {label: random_wear(rng, label, background, whole if label == WHOLE else None) for label in labels}
    return Doll(random_body(rng), {label: fixed.get(label, wear) for label, wear in drawn.items()}, background)


def random_wear(rng: np.random.Generator, label: str, background: Background, shape: str | None = None) -> Wear:
    shape = shape or str(rng.choice(SHAPES[label]))
    if label == FACE:
        skin = _mix((0.99, 0.86, 0.74), (0.33, 0.20, 0.14), rng.uniform())
        eyes = _mix((0.15, 0.30, 0.60), (0.20, 0.10, 0.05), rng.uniform())
        return Wear(shape, "plain", (skin, eyes))
    avoid = background.colours
    first = _random_colour(rng, avoid, BACKGROUND_CONTRAST)
    patterned = label in (UPPER, LOWER, WHOLE)
    pattern = str(rng.choice(PATTERNS)) if patterned else "plain"
    second = first if pattern == "plain" else _random_colour(rng, avoid, BACKGROUND_CONTRAST, first)
    return Wear(shape, pattern, (first, second))


def random_body(rng: np.random.Generator) -> Body:
    def angle(low: float, high: float) -> float:
        return math.radians(rng.uniform(low, high))

    def down(from_: Point, length: float, turn: float) -> Point:
        """`turn` in radians from straight down, positive to the right."""
        return from_ + length * np.array([math.sin(turn), math.cos(turn)])

    broad = rng.uniform(0.85, 1.2)
    lean = angle(-6, 6)
    hip = np.array([0.0, 0.53])
    neck = down(hip, -0.31, lean)
    head = down(neck, -0.115, lean + angle(-8, 8))
    across = np.array([math.cos(lean), -math.sin(lean)])
    shoulder, hips = 0.098 * broad, 0.058 * rng.uniform(0.9, 1.25)
    joints = {"hip": hip, "neck": neck, "head": head}
    for side, sign in (("right", -1), ("left", 1)):  # the figure looks at us: its right is our left
        joints[f"{side} shoulder"] = neck + 0.035 * (hip - neck) / 0.31 + sign * shoulder * across
        raise_ = angle(8, 75) if rng.uniform() < 0.8 else angle(75, 150)
        joints[f"{side} elbow"] = down(joints[f"{side} shoulder"], 0.155, sign * raise_)
        joints[f"{side} wrist"] = down(joints[f"{side} elbow"], 0.145, sign * (raise_ + angle(-15, 60)))
        joints[f"{side} hip"] = hip + sign * hips * across
        spread = angle(0, 20)
        joints[f"{side} knee"] = down(joints[f"{side} hip"], 0.225, sign * spread)
        joints[f"{side} ankle"] = down(joints[f"{side} knee"], 0.205, sign * (spread - angle(0, 18)))
    return Body(
        joints,
        head=0.062 * rng.uniform(0.92, 1.12),
        neck=0.026,
        shoulder=shoulder,
        waist=0.074 * broad * rng.uniform(0.9, 1.1),
        hip=hips + 0.034,
        arm=0.027 * rng.uniform(0.85, 1.2),
        leg=0.040 * rng.uniform(0.85, 1.15),
    )


def _random_colour(
    rng: np.random.Generator, avoid: tuple[Colour, ...], contrast: float, partner: Colour | None = None
) -> Colour:
    while True:
        colour = colorsys.hsv_to_rgb(rng.uniform(), rng.uniform() ** 0.6, rng.uniform(0.12, 1.0))
        if all(math.dist(colour, other) >= contrast for other in avoid) and (
            partner is None or math.dist(colour, partner) >= PATTERN_CONTRAST
        ):
            return colour


def _mix(a: Colour, b: Colour, t: float) -> Colour:
    return tuple(float((1 - t) * x + t * y) for x, y in zip(a, b))
