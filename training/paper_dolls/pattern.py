"""The patterns of clothes and backgrounds, as seen in a picture."""

from __future__ import annotations

import numpy as np

from .figure import Point, View

PATTERN_PERIOD = 0.12  # of the figure's height


def pattern_amount(pattern: str, x: np.ndarray, y: np.ndarray, view: View, anchor: Point, down: Point) -> np.ndarray:
    """How much of its second colour a pattern shows at the given pixels, in 0..1.

    anchor: where the pattern begins, in figure lengths; down: its direction
    """
    period = PATTERN_PERIOD * view.scale
    origin = view.offset + view.scale * anchor
    x, y = (x - origin[0]) / period, (y - origin[1]) / period
    along, across = x * down[0] + y * down[1], x * down[1] - y * down[0]

    def edge(distance: np.ndarray) -> np.ndarray:
        """Coverage by the second colour, from the distance to its edge in periods."""
        return (0.5 + distance * period).clip(0, 1)

    if pattern == "stripes":
        return edge(_wave(along))
    if pattern == "checks":
        a, b = edge(_wave(along)), edge(_wave(across))
        return a * (1 - b) + b * (1 - a)
    return edge(0.32 - np.hypot(along - np.round(along), across - np.round(across)))


def _wave(x: np.ndarray) -> np.ndarray:
    """Signed distance, in periods, to the edges of bands half a period wide, positive within them."""
    return 0.25 - np.abs(x - np.floor(x) - 0.75)
