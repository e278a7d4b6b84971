"""Draws paper dolls: the picture, and where each part is seen."""

from __future__ import annotations

import numpy as np

from .canvas import Brush, Canvas, Drawing
from .figure import FACE, HAIR, LOWER, MOUTH, SHOES, UPPER, WHOLE, Colour, Doll, Point, View, Wear

SLEEVES = {
    "a t-shirt": 0.55, "a long-sleeved shirt": 2.0, "a tank top": 0.0, "a short dress": 0.5, "a long dress": 0.0,
}


def draw_doll(doll: Doll, view: View) -> Drawing:
    figure = _Figure(doll, view)
    body, wears = doll.body, doll.wears
    joints = body.joints
    skin = wears[FACE].colours[0]
    hair = wears[HAIR]
    whole = wears.get(WHOLE)
    coat = whole if whole and whole.shape == "an open coat" else None
    dress = None if coat else whole

    if hair.shape == "long hair":
        figure.hair_behind(hair)
    if coat:
        figure.fill(WHOLE, coat, figure.coat_back)
    for side in ("right", "left"):
        figure.limb(None, skin, body.path(side, "hip", "knee", "ankle"), body.leg, 0.72 * body.leg)
    for side in ("right", "left"):
        figure.shoe(wears[SHOES], side)
    if LOWER in wears:
        figure.fill(LOWER, wears[LOWER], figure.lower)
    figure.limb(None, skin, [joints["neck"] + 0.02 * body.down, joints["head"]], body.neck, body.neck)
    top = wears.get(UPPER) or dress
    figure.torso_skin(skin)
    # Arms, then sleeves of the top over them, then those of the coat.
    for side in ("right", "left"):
        figure.limb(None, skin, body.path(side, "shoulder", "elbow", "wrist"), body.arm, 0.8 * body.arm)
        figure.disc(None, skin, joints[f"{side} wrist"], 1.15 * body.arm)
    figure.fill(UPPER if UPPER in wears else WHOLE, top, lambda brush: figure.top(brush, top.shape))
    if coat:
        figure.fill(WHOLE, coat, figure.coat_front)
    figure.face(wears[FACE])
    figure.hair_in_front(hair)
    return figure.canvas.finish()


class _Figure:
    """The parts of a figure, each laid on its canvas."""

    def __init__(self, doll: Doll, view: View):
        self.body, self.joints, self.wears = doll.body, doll.body.joints, doll.wears
        self.down = self.body.down
        self.right_of = np.array([self.down[1], -self.down[0]])
        self.canvas = Canvas(view, doll.background, doll.wears)

    def fill(self, label: str, wear: Wear, draw):
        """A garment, with its pattern anchored at the neck or the hip."""
        anchor = self.joints["hip"] if label == LOWER else self.joints["neck"]
        self.canvas.lay_patterned(label, draw, wear.pattern, wear.colours, anchor, self.down)

    def limb(self, label: str | None, colour: Colour, path: list[Point], start: float, end: float):
        self.canvas.lay(label, lambda brush: brush.tube(path, start, end), colour)

    def disc(self, label: str | None, colour: Colour, centre: Point, radius: float):
        self.canvas.lay(label, lambda brush: brush.disc(centre, radius), colour)

    # Parts of the figure

    def torso_skin(self, skin: Colour):
        self.canvas.lay(None, lambda brush: brush.polygon(self._torso(0.95, 0.0)), skin)

    def top(self, brush: Brush, shape: str):
        """A shirt, or the upper part and the skirt of a dress."""
        hem = {"a short dress": 0.17, "a long dress": 0.34}.get(shape, 0.03)
        flare = {"a short dress": 0.06, "a long dress": 0.09}.get(shape, 0.0)
        brush.polygon(self._torso(1.06, hem, flare))
        reach = SLEEVES[shape]
        if reach:
            for side in ("right", "left"):
                arm = self.body.path(side, "shoulder", "elbow", "wrist")
                brush.tube(_partial(arm, reach), 1.45 * self.body.arm, 1.3 * self.body.arm)

    def lower(self, brush: Brush):
        shape, body, joints = self.wears[LOWER].shape, self.body, self.joints
        if shape == "a skirt":
            brush.polygon(self._trapezoid(
                joints["hip"] - 0.06 * self.down, body.waist + 0.02, joints["hip"] + 0.19 * self.down, body.hip + 0.075
            ))
            return
        reach = 1.92 if shape == "trousers" else 0.62
        brush.polygon(self._trapezoid(
            joints["hip"] - 0.06 * self.down, body.waist + 0.015, joints["hip"] + 0.04 * self.down, body.hip + 0.01
        ))
        for side in ("right", "left"):
            brush.tube(_partial(body.path(side, "hip", "knee", "ankle"), reach), 1.12 * body.leg, 0.98 * body.leg)

    def coat_back(self, brush: Brush):
        brush.polygon(self._torso(1.25, 0.26, 0.06))

    def coat_front(self, brush: Brush):
        """Two fronts, open in the middle, and sleeves."""
        corners = self._torso(1.25, 0.26, 0.06)
        neck, hem = self.joints["neck"] + 0.01 * self.down, self.joints["hip"] + 0.26 * self.down
        for sign in (-1, 1):
            gap_top, gap_hem = neck + sign * 0.040 * self.right_of, hem + sign * 0.085 * self.right_of
            half = corners[: len(corners) // 2] if sign > 0 else corners[len(corners) // 2:][::-1]
            brush.polygon([*half, gap_hem, gap_top])
        for side in ("right", "left"):
            arm = self.body.path(side, "shoulder", "elbow", "wrist")
            brush.tube(_partial(arm, 1.9), 1.6 * self.body.arm, 1.45 * self.body.arm)

    def shoe(self, wear: Wear, side: str):
        ankle, toe = self.body.foot(side)
        if wear.shape == "boots":
            shin = ankle + 0.5 * (self.joints[f"{side} knee"] - self.joints[f"{side} ankle"])
            self.limb(SHOES, wear.colours[0], [shin, ankle], 1.0 * self.body.leg, 0.9 * self.body.leg)
        self.limb(SHOES, wear.colours[0], [ankle, toe], 0.9 * self.body.leg, 0.75 * self.body.leg)

    def face(self, wear: Wear):
        skin, eyes = wear.colours
        head, radius = self.joints["head"], self.body.head
        self.disc(FACE, skin, head, radius)
        for sign in (-1, 1):
            self.disc(FACE, eyes, head + radius * (0.38 * sign * self.right_of - 0.02 * self.down), 0.15 * radius)
        mouth = head + 0.5 * radius * self.down
        ends = [mouth - 0.2 * radius * self.right_of, mouth + 0.2 * radius * self.right_of]
        self.limb(FACE, MOUTH, ends, 0.09 * radius, 0.09 * radius)

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
            self.canvas.lay(HAIR, lambda brush: brush.polygon(self._cap(1.16, -0.30)), colour)
            self.disc(HAIR, colour, head - 1.25 * radius * self.down, 0.3 * radius)
        elif wear.shape == "a cap":
            self.canvas.lay(HAIR, lambda brush: brush.polygon(self._cap(1.1, -0.40)), colour)
            brim = head - 0.42 * radius * self.down
            ends = [brim - 0.5 * radius * self.right_of, brim + 1.7 * radius * self.right_of]
            self.limb(HAIR, colour, ends, 0.13 * radius, 0.1 * radius)
        else:
            self.canvas.lay(HAIR, lambda brush: brush.polygon(self._cap(1.12, -0.28)), colour)

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


def _partial(path: list[Point], reach: float) -> list[Point]:
    """The first `reach` segments of a path."""
    whole = int(min(reach, len(path) - 1))
    points = path[: whole + 1]
    if reach > whole and whole + 1 < len(path):
        points = [*points, path[whole] + (reach - whole) * (path[whole + 1] - path[whole])]
    return points
