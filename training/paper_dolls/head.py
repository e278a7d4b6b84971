"""The face: ears, eyes, brows, nose, cheeks and mouth. Lengths are radii of the head."""

from __future__ import annotations

import numpy as np

from .body import Body
from .canvas import Canvas, Polygon, ellipse, tube
from .figure import BROWN, FACE, LIPS, ROSE, WHITE, Colour, Wear, mix

EYE = (0.37, 0.13)
MOUTH = 0.54


def face(canvas: Canvas, body: Body, wear: Wear):
    frame, (skin, eyes) = body.face, wear.colours
    dark = mix(skin, (0.50, 0.16, 0.10), 0.35)

    def line(x, y, width: float) -> list[Polygon]:
        return tube(frame.at(np.asarray(x), np.asarray(y)), width * body.head, width * body.head)

    ears = [ellipse(frame, sign * 0.93, 0.12, 0.17, 0.22) for sign in (-1, 1)]
    canvas.lay(FACE, ears, skin)
    canvas.lay(FACE, [ellipse(frame, sign * 0.95, 0.12, 0.08, 0.12) for sign in (-1, 1)], dark, opacity=0.6)
    canvas.lay(FACE, [head_shape(body)], skin)
    for sign in (-1, 1):
        canvas.lay(FACE, [ellipse(frame, sign * 0.60, 0.42, 0.17, 0.12)], blush(skin))
        x, y = sign * EYE[0], EYE[1]
        canvas.lay(FACE, [ellipse(frame, x, y, 0.185, 0.225)], WHITE)
        iris, *pupil_and_light = eye(body, sign)
        canvas.lay(FACE, [iris], eyes)
        for shape, colour in zip(pupil_and_light, ((0.07, 0.05, 0.06), WHITE)):
            canvas.lay(FACE, [shape], colour)
        t = np.linspace(-1.15, 1.15, 9)
        canvas.lay(FACE, line(x + 0.205 * np.sin(t), y - 0.235 * np.cos(t), 0.042), BROWN)
        canvas.lay(FACE, line(x + sign * np.array([-0.17, 0.02, 0.20]), np.array([-0.25, -0.32, -0.27]), 0.042), BROWN)
    canvas.lay(FACE, line([-0.05, 0.01, 0.06], [0.33, 0.37, 0.33], 0.03), dark)
    lips, teeth = mouth(body, wear)
    canvas.lay(FACE, lips, LIPS)
    if teeth:
        canvas.lay(FACE, teeth, WHITE)
    if wear.shape == "glasses":
        t = np.linspace(0, 2 * np.pi, 25)
        for sign in (-1, 1):
            canvas.lay(FACE, line(sign * EYE[0] + 0.30 * np.cos(t), EYE[1] + 0.02 + 0.29 * np.sin(t), 0.036), BROWN)
            canvas.lay(FACE, line([sign * 0.67, sign * 0.94], [EYE[1], EYE[1] - 0.06], 0.036), BROWN)
        canvas.lay(FACE, line([-0.07, 0.0, 0.07], [EYE[1] - 0.02, EYE[1] - 0.06, EYE[1] - 0.02], 0.036), BROWN)


def blush(skin: Colour) -> Colour:
    """The colour of the cheeks."""
    return mix(skin, ROSE, 0.38)


def eye(body: Body, sign: int) -> list[Polygon]:
    """Iris, pupil and a light in it, of the eye to the right (1) or to the left (-1)."""
    frame, x, y = body.face, sign * EYE[0], EYE[1]
    return [
        ellipse(frame, x, y + 0.02, 0.15, 0.175),
        ellipse(frame, x, y + 0.03, 0.075, 0.09),
        ellipse(frame, x - 0.055, y - 0.06, 0.055),
    ]


def mouth(body: Body, wear: Wear) -> tuple[list[Polygon], list[Polygon]]:
    """Lips and teeth."""
    t = np.linspace(-1, 1, 11)
    if wear.shape != "open smile":
        return tube(body.face.at(0.23 * t, MOUTH + 0.10 * (1 - t**2) - 0.03), 0.05 * body.head, 0.05 * body.head), []
    lips = body.face.at(np.concatenate([0.28 * t, 0.28 * t[::-1]]), MOUTH - 0.06 + np.concatenate([0 * t, 0.26 * (1 - t**2)]))
    teeth = body.face.at(0.24 * np.array([-1, 1, 0.85, -0.85]), MOUTH - 0.06 + np.array([0.0, 0.0, 0.085, 0.085]))
    return [lips], [teeth]


def head_shape(body: Body) -> Polygon:
    """Round above, narrower towards the chin."""
    t = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    x, y = np.sin(t), -np.cos(t)
    return body.face.at(0.94 * x * (1 - 0.10 * np.maximum(y, 0) ** 2), 0.98 * y)
