"""Draws paper dolls: the picture, and where each part is seen.

Shapes are filled polygons and lines of Pillow at SUPERSAMPLE times the size, laid over each other by their coverage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .figure import FACE, HAIR, LOWER, SHOES, UPPER, WHOLE, Colour, Doll, Point, View, Wear
from .pattern import pattern_amount

SUPERSAMPLE = 3
SLEEVES = {
    "a t-shirt": 0.55, "a long-sleeved shirt": 2.0, "a tank top": 0.0, "a short dress": 0.5, "a long dress": 0.0,
}


class Drawing(NamedTuple):
    """image: [H, W, 3] uint8; regions: for each part how much of a pixel it covers, [H, W] in 0..1; figure: the same of all"""

    image: np.ndarray
    regions: dict[str, np.ndarray]
    figure: np.ndarray


def draw_doll(doll: Doll, view: View) -> Drawing:
    canvas = _Canvas(doll, view)
    body, wears = doll.body, doll.wears
    joints = body.joints
    skin = wears[FACE].colours[0]
    hair = wears[HAIR]
    whole = wears.get(WHOLE)
    coat = whole if whole and whole.shape == "an open coat" else None
    dress = None if coat else whole

    if hair.shape == "long hair":
        canvas.hair_behind(hair)
    if coat:
        canvas.fill(WHOLE, coat, canvas.coat_back)
    for side in ("right", "left"):
        canvas.limb(None, skin, body.path(side, "hip", "knee", "ankle"), body.leg, 0.72 * body.leg)
    for side in ("right", "left"):
        canvas.shoe(wears[SHOES], side)
    if LOWER in wears:
        canvas.fill(LOWER, wears[LOWER], canvas.lower)
    canvas.limb(None, skin, [joints["neck"] + 0.02 * body.down, joints["head"]], body.neck, body.neck)
    top = wears.get(UPPER) or dress
    canvas.torso_skin(skin)
    # Arms, then sleeves of the top over them, then those of the coat.
    for side in ("right", "left"):
        canvas.limb(None, skin, body.path(side, "shoulder", "elbow", "wrist"), body.arm, 0.8 * body.arm)
        canvas.disc(None, skin, joints[f"{side} wrist"], 1.15 * body.arm)
    canvas.fill(UPPER if UPPER in wears else WHOLE, top, lambda d: canvas.top(d, top.shape))
    if coat:
        canvas.fill(WHOLE, coat, canvas.coat_front)
    canvas.face(wears[FACE])
    canvas.hair_in_front(hair)
    return canvas.finish()


class _Canvas:
    def __init__(self, doll: Doll, view: View):
        self.body, self.joints, self.view, self.wears = doll.body, doll.body.joints, view, doll.wears
        self.down = self.body.down
        self.right_of = np.array([self.down[1], -self.down[0]])
        self.y, self.x = np.mgrid[: view.height, : view.width].astype(np.float32) + 0.5
        background = {"plain": "plain", "striped": "stripes", "dotted": "dots"}[doll.background.pattern]
        self.image = np.empty((view.height, view.width, 3), np.float32)
        self.image[:] = self._colours(
            np.s_[:, :], background, doll.background.colours, np.zeros(2), np.array([0.0, 1.0])
        )
        self.figure = np.zeros((view.height, view.width), np.float32)
        self.regions = {label: np.zeros((view.height, view.width), np.float32) for label in doll.wears}

    # Layers

    def lay(self, label: str | None, draw, colour: Colour | Callable[[tuple[slice, slice]], np.ndarray]):
        """Lays a shape of a part, or of bare skin, over what is there. colour: where it is patterned, a function of the place"""
        mask = Image.new("L", (self.view.width * SUPERSAMPLE, self.view.height * SUPERSAMPLE))
        draw(ImageDraw.Draw(mask))
        box = mask.getbbox()
        if box is None:
            return
        left, top, right, bottom = (*(n // SUPERSAMPLE for n in box[:2]), *(-(-n // SUPERSAMPLE) for n in box[2:]))
        mask = mask.crop((left * SUPERSAMPLE, top * SUPERSAMPLE, right * SUPERSAMPLE, bottom * SUPERSAMPLE)).reduce(SUPERSAMPLE)
        alpha = np.asarray(mask, np.float32) / 255
        where = np.s_[top:bottom, left:right]
        colours = colour(where) if callable(colour) else np.asarray(colour, np.float32)
        self.image[where] += alpha[..., None] * (colours - self.image[where])
        self.figure[where] += alpha * (1 - self.figure[where])
        for name, region in self.regions.items():
            region[where] += alpha * ((name == label) - region[where])

    def fill(self, label: str, wear: Wear, draw):
        """A garment, with its pattern anchored at the neck or the hip."""
        anchor = self.joints["hip"] if label == LOWER else self.joints["neck"]
        self.lay(label, draw, lambda where: self._colours(where, wear.pattern, wear.colours, anchor, self.down))

    def limb(self, label, colour: Colour, path: list[Point], start: float, end: float):
        self.lay(label, lambda d: self._tube(d, path, start, end), colour)

    def disc(self, label, colour: Colour, centre: Point, radius: float):
        self.lay(label, lambda d: self._disc(d, centre, radius), colour)

    def finish(self) -> Drawing:
        return Drawing((self.image * 255).round().clip(0, 255).astype(np.uint8), self.regions, self.figure)

    # Parts of the figure

    def torso_skin(self, skin: Colour):
        self.lay(None, lambda d: self._polygon(d, self._torso(0.95, 0.0)), skin)

    def top(self, d, shape: str):
        """A shirt, or the upper part and the skirt of a dress."""
        hem = {"a short dress": 0.17, "a long dress": 0.34}.get(shape, 0.03)
        flare = {"a short dress": 0.06, "a long dress": 0.09}.get(shape, 0.0)
        self._polygon(d, self._torso(1.06, hem, flare))
        reach = SLEEVES[shape]
        if reach:
            for side in ("right", "left"):
                arm = self.body.path(side, "shoulder", "elbow", "wrist")
                self._tube(d, _partial(arm, reach), 1.45 * self.body.arm, 1.3 * self.body.arm)

    def lower(self, d):
        shape, body, joints = self.wears[LOWER].shape, self.body, self.joints
        if shape == "a skirt":
            self._polygon(d, self._trapezoid(joints["hip"] - 0.06 * self.down, body.waist + 0.02, joints["hip"] + 0.19 * self.down,
                                             body.hip + 0.075))
            return
        reach = 1.92 if shape == "trousers" else 0.62
        self._polygon(d, self._trapezoid(joints["hip"] - 0.06 * self.down, body.waist + 0.015, joints["hip"] + 0.04 * self.down,
                                         body.hip + 0.01))
        for side in ("right", "left"):
            self._tube(d, _partial(body.path(side, "hip", "knee", "ankle"), reach), 1.12 * body.leg, 0.98 * body.leg)

    def coat_back(self, d):
        self._polygon(d, self._torso(1.25, 0.26, 0.06))

    def coat_front(self, d):
        """Two fronts, open in the middle, and sleeves."""
        corners = self._torso(1.25, 0.26, 0.06)
        neck, hem = self.joints["neck"] + 0.01 * self.down, self.joints["hip"] + 0.26 * self.down
        for sign in (-1, 1):
            gap_top, gap_hem = neck + sign * 0.040 * self.right_of, hem + sign * 0.085 * self.right_of
            half = corners[: len(corners) // 2] if sign > 0 else corners[len(corners) // 2:][::-1]
            self._polygon(d, [*half, gap_hem, gap_top])
        for side in ("right", "left"):
            arm = self.body.path(side, "shoulder", "elbow", "wrist")
            self._tube(d, _partial(arm, 1.9), 1.6 * self.body.arm, 1.45 * self.body.arm)

    def shoe(self, wear: Wear, side: str):
        ankle, toe = self.body.foot(side)
        path = [ankle, toe]
        if wear.shape == "boots":
            shin = ankle + 0.5 * (self.joints[f"{side} knee"] - self.joints[f"{side} ankle"])
            self.limb(SHOES, wear.colours[0], [shin, ankle], 1.0 * self.body.leg, 0.9 * self.body.leg)
        self.limb(SHOES, wear.colours[0], path, 0.9 * self.body.leg, 0.75 * self.body.leg)

    def face(self, wear: Wear):
        skin, eyes = wear.colours
        head, radius = self.joints["head"], self.body.head
        self.disc(FACE, skin, head, radius)
        for sign in (-1, 1):
            self.disc(FACE, eyes, head + radius * (0.38 * sign * self.right_of - 0.02 * self.down), 0.15 * radius)
        mouth = head + 0.5 * radius * self.down
        self.limb(FACE, (0.75, 0.25, 0.25), [mouth - 0.2 * radius * self.right_of, mouth + 0.2 * radius * self.right_of],
                  0.09 * radius, 0.09 * radius)

    def hair_behind(self, wear: Wear):
        head, radius = self.joints["head"], self.body.head
        self.limb(HAIR, wear.colours[0], [head, head + 0.17 * self.down], 1.22 * radius, 1.3 * radius)

    def hair_in_front(self, wear: Wear):
        head, radius, colour = self.joints["head"], self.body.head, wear.colours[0]
        if wear.shape == "curly hair":
            for turn in np.linspace(-1.75, 1.75, 7):
                at = head + 1.05 * radius * (np.sin(turn) * self.right_of - np.cos(turn) * self.down)
                self.disc(HAIR, colour, at, 0.46 * radius)
        elif wear.shape == "a beanie":
            self.lay(HAIR, lambda d: self._polygon(d, self._cap(1.16, -0.30)), colour)
            self.disc(HAIR, colour, head - 1.25 * radius * self.down, 0.3 * radius)
        elif wear.shape == "a cap":
            self.lay(HAIR, lambda d: self._polygon(d, self._cap(1.1, -0.40)), colour)
            brim = head - 0.42 * radius * self.down
            ends = [brim - 0.5 * radius * self.right_of, brim + 1.7 * radius * self.right_of]
            self.limb(HAIR, colour, ends, 0.13 * radius, 0.1 * radius)
        else:
            self.lay(HAIR, lambda d: self._polygon(d, self._cap(1.12, -0.28)), colour)

    # Shapes, in figure lengths

    def _torso(self, wide: float, hem: float, flare: float = 0.0) -> list[Point]:
        """Shoulders, waist, hips and a hem below the hips: the left side downwards, then the right side upwards."""
        body, neck, hip = self.body, self.joints["neck"], self.joints["hip"]
        rows = [
            (neck - 0.005 * self.down, 0.045), (neck + 0.03 * self.down, wide * body.shoulder + 0.008),
            (neck + 0.6 * (hip - neck), wide * body.waist), (hip + hem * self.down, wide * body.hip + flare),
        ]
        return [p + w * self.right_of for p, w in rows] + [p - w * self.right_of for p, w in reversed(rows)]

    def _trapezoid(self, top: Point, top_half: float, bottom: Point, bottom_half: float) -> list[Point]:
        r = self.right_of
        return [top + top_half * r, bottom + bottom_half * r, bottom - bottom_half * r, top - top_half * r]

    def _cap(self, wide: float, cut: float) -> list[Point]:
        """A segment of a circle around the head, above `cut` radii below its middle."""
        head, radius = self.joints["head"], self.body.head
        limit = np.arccos(-cut / wide)
        return [
            head + wide * radius * (np.sin(turn) * self.right_of - np.cos(turn) * self.down)
            for turn in np.linspace(-limit, limit, 24)
        ]

    # Pixels

    def _colours(
        self, where: tuple[slice, slice], pattern: str, colours: tuple[Colour, Colour], anchor: Point, down: Point
    ) -> np.ndarray:
        """A pattern at the given place of the picture. [h, w, 3], or [3] for one colour"""
        first, second = (np.asarray(colour, np.float32) for colour in colours)
        if pattern == "plain":
            return first
        amount = pattern_amount(pattern, self.x[where], self.y[where], self.view, anchor, down)
        return first + amount[..., None].astype(np.float32) * (second - first)

    def _pixels(self, points: list[Point]) -> list[tuple[float, float]]:
        return [tuple(SUPERSAMPLE * (self.view.offset + self.view.scale * point)) for point in points]

    def _polygon(self, d: ImageDraw.ImageDraw, points: list[Point]):
        d.polygon(self._pixels(points), fill=255)

    def _disc(self, d: ImageDraw.ImageDraw, centre: Point, radius: float):
        (x, y), r = self._pixels([centre])[0], SUPERSAMPLE * self.view.scale * radius
        d.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def _tube(self, d: ImageDraw.ImageDraw, path: list[Point], start: float, end: float):
        """A limb: round at its joints, thinner towards its end."""
        radii = np.linspace(start, end, len(path))
        for a, b, ra, rb in zip(path, path[1:], radii, radii[1:]):
            axis = (b - a) / (np.hypot(*(b - a)) + 1e-9)
            side = np.array([axis[1], -axis[0]])
            self._polygon(d, [a + ra * side, b + rb * side, b - rb * side, a - ra * side])
        for point, radius in zip(path, radii):
            self._disc(d, point, radius)


def _partial(path: list[Point], reach: float) -> list[Point]:
    """The first `reach` segments of a path."""
    whole = int(min(reach, len(path) - 1))
    points = path[: whole + 1]
    if reach > whole and whole + 1 < len(path):
        points = [*points, path[whole] + (reach - whole) * (path[whole + 1] - path[whole])]
    return points
