"""Lays shapes over each other in a picture, and keeps account of which part each pixel shows.

Shapes are polygons in figure lengths; Pillow fills them at SUPERSAMPLE times the size, and they cover by that.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .body import Frame, Point, View
from .figure import Background, Colour, Wear
from .pattern import pattern_amount

SUPERSAMPLE = 4
Polygon = np.ndarray  # [N, 2]
_TURN = np.linspace(0, 2 * np.pi, 28, endpoint=False)
_ROUND = np.stack([np.cos(_TURN), np.sin(_TURN)], -1)


class Fabric(NamedTuple):
    """A garment's pattern, anchored on the body."""

    wear: Wear
    frame: Frame


class Cloth(NamedTuple):
    """A piece of fabric as it was laid: where in the picture, how much of each pixel it covers, and where its pattern begins."""

    where: tuple[slice, ...]
    cover: np.ndarray
    frame: Frame


class Canvas:
    def __init__(self, view: View, labels: list[str], background: Background, skin: Colour):
        self.view, self.labels, self.skin = view, labels, skin
        y, x = np.mgrid[: view.height, : view.width].astype(np.float32) + 0.5
        self.x, self.y = x, y
        # [3, H, W]
        self.image = np.empty((3, view.height, view.width), np.float32)
        self.image[:] = _flat(background.colours[0])
        # How much of each pixel each part covers, [P + 1, H, W]; the last is the whole figure.
        self.cover = np.zeros((len(labels) + 1, view.height, view.width), np.float32)
        self.cloths: list[Cloth] = []

    def lay(self, label: str | None, shapes: list[Polygon], paint: Colour | Fabric, opacity: float = 1.0, figure: bool = True):
        """Lays the union of some shapes, of a part or of bare skin, over what is there.

        opacity: below 1 for a tint, which belongs to what is under it; figure: False for what lies on the ground
        """
        where, alpha = rasterize(self.view, shapes)
        if where is None:
            return
        colours = self._colours(where, paint) if isinstance(paint, Fabric) else _flat(paint)
        if isinstance(paint, Fabric):
            self.cloths.append(Cloth(where, alpha, paint.frame))
        self.image[where] += opacity * alpha * (colours - self.image[where])
        if figure and opacity == 1:
            self.cover[where] *= 1 - alpha
            self.cover[-1][where[1:]] += alpha
            if label:
                self.cover[self.labels.index(label)][where[1:]] += alpha

    def shade(self, shapes: list[Polygon], amount: float, move: tuple[float, float] = (0.0, 0.0)):
        """Darkens the figure, and only it, under some shapes."""
        where, alpha = rasterize(self.view, [np.asarray(shape) + move for shape in shapes])
        if where is not None:
            self.image[where] *= 1 - amount * alpha * self.cover[-1][where[1:]]

    def _colours(self, where: tuple[slice, ...], fabric: Fabric) -> np.ndarray:
        """A pattern at the given place of the picture. [3, h, w], or [3, 1, 1] for one colour"""
        wear, frame = fabric
        first, second = (_flat(colour) for colour in wear.colours)
        if wear.pattern == "plain":
            return first
        amount = pattern_amount(wear.pattern, self.x[where[1:]], self.y[where[1:]], self.view, frame)
        return first + amount.astype(np.float32) * (second - first)


def rasterize(view: View, shapes: list[Polygon]) -> tuple[tuple[slice, ...] | None, np.ndarray | None]:
    """Where some shapes lie in a [C, H, W] picture, and how much of each pixel there they cover, [h, w]; None where outside."""
    shapes = [view.offset + view.scale * np.asarray(shape) for shape in shapes]
    points = np.concatenate(shapes)
    low = np.maximum(np.floor(points.min(0)).astype(int), 0)
    high = np.minimum(np.ceil(points.max(0)).astype(int) + 1, (view.width, view.height))
    if (high <= low).any():
        return None, None
    mask = Image.new("L", tuple(int(n) for n in SUPERSAMPLE * (high - low)))
    draw = ImageDraw.Draw(mask)
    for shape in shapes:
        draw.polygon((SUPERSAMPLE * (shape - low)).ravel().tolist(), fill=255)
    alpha = np.asarray(mask.reduce(SUPERSAMPLE), np.float32) / 255
    return np.s_[:, low[1] : high[1], low[0] : high[0]], alpha


def coverage(view: View, shapes: list[Polygon]) -> np.ndarray:
    """How much of each pixel of a whole picture some shapes cover. [H, W] in 0..1"""
    whole = np.zeros((1, view.height, view.width), np.float32)
    if shapes:
        where, alpha = rasterize(view, shapes)
        if where is not None:
            whole[where] = alpha
    return whole[0]


def _flat(colour: Colour) -> np.ndarray:
    return np.array(colour, np.float32)[:, None, None]


def ellipse(frame: Frame, x: float, y: float, width: float, height: float | None = None, turn: float = 0.0) -> Polygon:
    """Half width and half height; `turn` in radians, clockwise."""
    a, b = width * _ROUND[:, 0], (width if height is None else height) * _ROUND[:, 1]
    return frame.at(x + a * np.cos(turn) - b * np.sin(turn), y + a * np.sin(turn) + b * np.cos(turn))


def disc(centre: Point, radius: float) -> Polygon:
    return centre + radius * _ROUND


def tube(path: list[Point] | np.ndarray, start: float, end: float, flat: bool = False) -> list[Polygon]:
    """A limb or a line: round at its joints, from one half width to another. flat: cut off at its end, as a sleeve is"""
    radii = np.linspace(start, end, len(path))
    shapes = [disc(point, radius) for point, radius in zip(path, radii)]
    if flat:
        shapes.pop()
    for a, b, ra, rb in zip(path, path[1:], radii, radii[1:]):
        axis = (b - a) / (math.hypot(*(b - a)) + 1e-9)
        side = np.array([axis[1], -axis[0]])
        shapes.append(np.array([a + ra * side, b + rb * side, b - rb * side, a - ra * side]))
    return shapes


def band(path: list[Point], at: float, length: float, width: float) -> Polygon:
    """A strip across a limb that ends at `at` of its segments; length along it, half width across it."""
    end = partial(path, at)
    axis = end[-1] - end[-2]
    axis = axis / (np.hypot(*axis) + 1e-9)
    side = np.array([axis[1], -axis[0]])
    far, near = end[-1] + 0.3 * length * axis, end[-1] - 0.7 * length * axis
    return np.array([far + width * side, near + width * side, near - width * side, far - width * side])


def partial(path: list[Point], reach: float) -> list[Point]:
    """The first `reach` segments of a path."""
    whole = int(min(reach, len(path) - 1))
    points = path[: whole + 1]
    if reach > whole and whole + 1 < len(path):
        points = [*points, path[whole] + (reach - whole) * (path[whole + 1] - path[whole])]
    return points
