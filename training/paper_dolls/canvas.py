"""The surface that a paper doll is drawn on: filled shapes in figure lengths, laid over each other by their coverage.

Shapes are polygons and discs of Pillow at SUPERSAMPLE times the size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from .figure import Background, Colour, Point, View
from .pattern import pattern_amount

SUPERSAMPLE = 3
Colours = tuple[Colour, Colour]


class Drawing(NamedTuple):
    """image: [H, W, 3] uint8; regions: for each part how much of a pixel it covers, [H, W] in 0..1; figure: the same of all"""

    image: np.ndarray
    regions: dict[str, np.ndarray]
    figure: np.ndarray


class Canvas:
    """A background, and what is laid over it. labels: of the parts whose regions are kept"""

    def __init__(self, view: View, background: Background, labels):
        self.view = view
        self.y, self.x = np.mgrid[: view.height, : view.width].astype(np.float32) + 0.5
        pattern = {"plain": "plain", "striped": "stripes", "dotted": "dots"}[background.pattern]
        self.image = np.empty((view.height, view.width, 3), np.float32)
        self.image[:] = self._colours(np.s_[:, :], pattern, background.colours, np.zeros(2), np.array([0.0, 1.0]))
        self.figure = np.zeros((view.height, view.width), np.float32)
        self.regions = {label: np.zeros((view.height, view.width), np.float32) for label in labels}

    def lay(self, label: str | None, draw: Callable[[Brush], None], colour: Colour | Callable[[tuple[slice, slice]], np.ndarray]):
        """Lays a shape of a part, or of bare skin, over what is there. colour: where it is patterned, a function of the place"""
        mask = Image.new("L", (self.view.width * SUPERSAMPLE, self.view.height * SUPERSAMPLE))
        draw(Brush(mask, self.view))
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

    def lay_patterned(
        self, label: str, draw: Callable[[Brush], None], pattern: str, colours: Colours, anchor: Point, down: Point
    ):
        """Lays a shape with a pattern that begins at `anchor` and runs along `down`."""
        self.lay(label, draw, lambda where: self._colours(where, pattern, colours, anchor, down))

    def finish(self) -> Drawing:
        return Drawing((self.image * 255).round().clip(0, 255).astype(np.uint8), self.regions, self.figure)

    def _colours(self, where: tuple[slice, slice], pattern: str, colours: Colours, anchor: Point, down: Point) -> np.ndarray:
        """A pattern at the given place of the picture. [h, w, 3], or [3] for one colour"""
        first, second = (np.asarray(colour, np.float32) for colour in colours)
        if pattern == "plain":
            return first
        amount = pattern_amount(pattern, self.x[where], self.y[where], self.view, anchor, down)
        return first + amount[..., None].astype(np.float32) * (second - first)


class Brush:
    """Fills shapes in a mask, at SUPERSAMPLE times the view's size. Points and lengths are those of the figure."""

    def __init__(self, mask: Image.Image, view: View):
        self.draw, self.view = ImageDraw.Draw(mask), view

    def polygon(self, points: list[Point]):
        self.draw.polygon([self._pixel(point) for point in points], fill=255)

    def disc(self, centre: Point, radius: float):
        (x, y), r = self._pixel(centre), SUPERSAMPLE * self.view.scale * radius
        self.draw.ellipse((x - r, y - r, x + r, y + r), fill=255)

    def tube(self, path: list[Point], start: float, end: float):
        """A limb: round at its joints, thinner towards its end. start, end: its radii there"""
        radii = np.linspace(start, end, len(path))
        for a, b, ra, rb in zip(path, path[1:], radii, radii[1:]):
            axis = (b - a) / (np.hypot(*(b - a)) + 1e-9)
            side = np.array([axis[1], -axis[0]])
            self.polygon([a + ra * side, b + rb * side, b - rb * side, a - ra * side])
        for point, radius in zip(path, radii):
            self.disc(point, radius)

    def _pixel(self, point: Point) -> tuple[float, float]:
        return tuple(SUPERSAMPLE * (self.view.offset + self.view.scale * point))
