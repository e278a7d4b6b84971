"""The patterns of clothes, as seen in a picture."""

from __future__ import annotations

import numpy as np

from .body import Frame, View

PATTERN_PERIOD = 0.11  # of the figure's height
# Of a period, how wide bands and the lines of checks are: less than half, so that a pattern lies on a ground. With as much of one
# colour as of the other a reference hardly tells which is which, and so not what belongs where in the target.
BAND, LINE, DOT = 0.35, 0.22, 0.3


def pattern_amount(pattern: str, x: np.ndarray, y: np.ndarray, view: View, frame: Frame) -> np.ndarray:
    """How much of its second colour a pattern shows at the given pixels, in 0..1.

    frame: where on the figure the pattern begins, and its direction
    """
    period = PATTERN_PERIOD * view.scale
    origin = view.offset + view.scale * frame.origin
    x, y = (x - origin[0]) / period, (y - origin[1]) / period
    across, along = x * frame.right[0] + y * frame.right[1], x * frame.down[0] + y * frame.down[1]

    def edge(distance: np.ndarray) -> np.ndarray:
        """Coverage by the second colour, from the distance to its edge in periods."""
        return (0.5 + distance * period).clip(0, 1)

    if pattern == "stripes":
        return edge(_wave(along, BAND))
    if pattern == "checks":
        return np.maximum(edge(_wave(along, LINE)), edge(_wave(across, LINE)))
    if pattern == "diagonals":
        return edge(_wave((along + across) * 0.5**0.5, BAND))
    if pattern == "zigzag":
        turns = 0.8 * np.abs(across - np.floor(across) - 0.5)
        return edge(_wave(along + turns, BAND) * 0.53)
    return edge(DOT - np.hypot(along - np.round(along), across - np.round(across)))


def _wave(x: np.ndarray, width: float) -> np.ndarray:
    """Signed distance, in periods, to the edges of bands, positive within them. width: of a band, in periods"""
    return width / 2 - np.abs(x - np.floor(x) - 0.5)
