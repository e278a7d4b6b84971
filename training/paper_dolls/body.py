"""The body of a paper doll and where it stands in a picture.

Lengths are fractions of the figure's height. x grows to the right, y downwards, and the ground is at y = 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Point = np.ndarray
SIDES = {"right": -1, "left": 1}  # the figure looks at us: its right is our left


class View(NamedTuple):
    """Where the figure stands in a picture: pixel = offset + scale * point."""

    width: int
    height: int
    scale: float
    offset: Point


class Frame(NamedTuple):
    """A frame of reference on the body: where it begins and its two directions, of length 1."""

    origin: Point
    right: Point
    down: Point

    def at(self, x: float | np.ndarray, y: float | np.ndarray) -> np.ndarray:
        """[..., 2]"""
        x, y = np.broadcast_arrays(np.asarray(x, float), np.asarray(y, float))
        return self.origin + x[..., None] * self.right + y[..., None] * self.down


@dataclass(frozen=True)
class Body:
    """Joints [2], the head's radius, and half widths of torso and limbs."""

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

    @property
    def torso(self) -> Frame:
        """From the neck, in figure lengths."""
        return Frame(self.joints["neck"], np.array([self.down[1], -self.down[0]]), self.down)

    @property
    def pelvis(self) -> Frame:
        """From the hip, in figure lengths."""
        return self.torso._replace(origin=self.joints["hip"])

    @property
    def face(self) -> Frame:
        """From the middle of the head, in the head's radii."""
        down = self.joints["neck"] - self.joints["head"]
        down = self.head * down / np.hypot(*down)
        return Frame(self.joints["head"], np.array([down[1], -down[0]]), down)

    def limb(self, side: str, start: str, end: str) -> Frame:
        """At a limb's end, in figure lengths; down leads away from the body."""
        a, b = self.path(side, start, end)
        down = (b - a) / (np.hypot(*(b - a)) + 1e-9)
        return Frame(b, np.array([down[1], -down[0]]), down)

    def outline(self, wide: float, hem: float, flare: float = 0.0, neck: float = 0.034) -> np.ndarray:
        """The torso's silhouette from neck to `hem`, in lengths below the neck. [N, 2], the right side downwards first

        wide: a factor for its width; flare: how much wider it is at the hem; neck: half width of the neckline
        """
        rows = [
            (-0.012, neck), (0.004, 0.6 * self.shoulder), (0.022, self.shoulder + 0.004), (0.050, self.shoulder + 0.006),
            (0.085, 0.93 * self.shoulder), (0.15, self.waist), (0.21, 0.97 * self.hip),
        ]
        rows = [(y, x) for y, x in rows if y < hem - 0.01]
        x = np.interp(hem, (0.085, 0.15, 0.21, 0.24), (0.93 * self.shoulder, self.waist, 0.97 * self.hip, self.hip))
        rows.append((hem, x + flare))
        y, x = np.array(rows).T
        x = x * np.where(y > 0.01, wide, 1)
        side = smooth(np.stack([x, y], -1), closed=False, pieces=4)
        return np.concatenate([self.torso.at(side[:, 0], side[:, 1]), self.torso.at(-side[::-1, 0], side[::-1, 1])])

    def path(self, side: str, *names: str) -> list[Point]:
        return [self.joints[f"{side} {name}"] for name in names]

    def foot(self, side: str) -> tuple[Point, Point]:
        """Ankle and toe."""
        ankle = self.joints[f"{side} ankle"]
        return ankle, ankle + np.array([0.042 * SIDES[side], 0.026])


def smooth(points: np.ndarray, closed: bool = True, pieces: int = 6) -> np.ndarray:
    """A curve through points (Catmull and Rom's). [N, 2] -> [N * pieces, 2]"""
    points = np.asarray(points, float)
    around = np.concatenate([points[-1:], points, points[:2]]) if closed else np.concatenate(
        [points[:1], points, points[-1:]]
    )
    t = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    parts = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(around, around[1:], around[2:], around[3:])
    ]
    return np.concatenate(parts if closed else [*parts, points[-1:]])


def random_body(rng: np.random.Generator) -> Body:
    def angle(low: float, high: float) -> float:
        return math.radians(rng.uniform(low, high))

    def down(from_: Point, length: float, turn: float) -> Point:
        """`turn` in radians from straight down, positive to the right."""
        return from_ + length * np.array([math.sin(turn), math.cos(turn)])

    broad = rng.uniform(0.9, 1.15)
    lean = angle(-6, 6)
    hip = np.array([0.0, 0.605])
    neck = down(hip, -0.24, lean)
    head = down(neck, -0.145, lean + angle(-9, 9))
    across = np.array([math.cos(lean), -math.sin(lean)])
    shoulder, hips = 0.079 * broad, 0.044 * rng.uniform(0.9, 1.2)
    joints = {"hip": hip, "neck": neck, "head": head}
    for side, sign in SIDES.items():
        joints[f"{side} shoulder"] = neck + 0.032 * (hip - neck) / 0.24 + sign * shoulder * across
        raise_ = angle(10, 70) if rng.uniform() < 0.8 else angle(70, 125)
        joints[f"{side} elbow"] = down(joints[f"{side} shoulder"], 0.12, sign * raise_)
        joints[f"{side} wrist"] = down(joints[f"{side} elbow"], 0.105, sign * (raise_ + angle(-20, 60)))
        joints[f"{side} hip"] = hip + sign * hips * across
        spread = angle(1, 20)
        joints[f"{side} knee"] = down(joints[f"{side} hip"], 0.175, sign * spread)
        joints[f"{side} ankle"] = down(joints[f"{side} knee"], 0.165, sign * (spread - angle(0, 18)))
    return Body(
        joints,
        head=0.105 * rng.uniform(0.94, 1.06),
        neck=0.029,
        shoulder=shoulder,
        waist=0.069 * broad * rng.uniform(0.92, 1.08),
        hip=hips + 0.036,
        arm=0.026 * rng.uniform(0.9, 1.15),
        leg=0.036 * rng.uniform(0.9, 1.12),
    )
