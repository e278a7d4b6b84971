"""Hair with its strands, and hats with their bands. Lengths are radii of the head."""

from __future__ import annotations

import numpy as np

from .body import Body, smooth
from .canvas import Canvas, Polygon, ellipse, tube
from .figure import HAIR, HEADWEAR, Wear, mix


def hair_behind(canvas: Canvas, body: Body, wear: Wear):
    frame = body.face
    if wear.shape == "long hair":
        half = np.array([[0.0, -1.1], [0.8, -0.95], [1.16, -0.2], [1.22, 0.7], [1.32, 1.5], [1.15, 1.95], [0.6, 2.0]])
        outline = smooth(np.concatenate([half, half[:0:-1] * (-1, 1)]))
        canvas.lay(HAIR, [frame.at(outline[:, 0], outline[:, 1])], mix(wear.colours[0], (0.05, 0.03, 0.05), 0.18))
    elif wear.shape in HEADWEAR:
        canvas.lay(HAIR, [ellipse(frame, 0, -0.12, 1.04, 0.86)], wear.colours[1])
    elif wear.shape == "a bun":
        canvas.lay(HAIR, [ellipse(frame, 0, -1.28, 0.42, 0.38)], wear.colours[0])
        for x in (-0.16, 0.0, 0.16):
            t = np.linspace(-1, 1, 7)
            _line(canvas, body, x + 0.06 * t, -1.28 + 0.3 * t, wear.line)


def hair_in_front(canvas: Canvas, body: Body, wear: Wear):
    if wear.shape in HEADWEAR:
        canvas.lay(HAIR, [ellipse(body.face, sign * 0.89, -0.16, 0.11, 0.30) for sign in (-1, 1)], wear.colours[1])
        HATS[wear.shape](canvas, body, wear)
        return
    frame, colour = body.face, wear.colours[0]
    if wear.shape == "curly hair":
        turns = np.linspace(-1.95, 1.95, 11)
        curls = [ellipse(frame, 1.02 * np.sin(t), -0.98 * np.cos(t) - 0.04, 0.36) for t in turns]
        fringe = [ellipse(frame, 0.62 * np.sin(t), -0.42 - 0.34 * np.cos(t), 0.30) for t in np.linspace(-1.3, 1.3, 5)]
        canvas.lay(HAIR, [*curls, *fringe], colour)
        for t in turns:
            a = np.linspace(0.2, 4.2, 9)
            x, y = 1.02 * np.sin(t), -0.98 * np.cos(t) - 0.04
            _line(canvas, body, x + 0.17 * np.cos(a + t), y + 0.17 * np.sin(a + t), wear.line)
        return
    fringes = {
        "short hair": [
            [1.02, 0.10], [0.90, -0.18], [0.66, -0.44], [0.10, -0.40], [-0.42, -0.56], [-0.80, -0.34], [-0.92, -0.10],
            [-1.02, 0.10],
        ],
        "long hair": [
            [1.04, 0.85], [0.90, 0.30], [0.74, -0.20], [0.42, -0.56], [0.0, -0.78], [-0.42, -0.56], [-0.74, -0.20], [-0.90, 0.30],
            [-1.04, 0.85],
        ],
        "a bun": [[1.0, 0.0], [0.86, -0.34], [0.5, -0.62], [0.0, -0.70], [-0.5, -0.62], [-0.86, -0.34], [-1.0, 0.0]],
    }
    fringe = np.array(fringes[wear.shape])
    inner = smooth(fringe, closed=False)
    low = fringe[0, 1]
    limit = np.arccos(np.clip(-low / 1.12, -1, 1)) if low < 1 else 2.6
    t = np.linspace(-limit, limit, 40)
    outer = np.stack([1.10 * np.sin(t), -1.12 * np.cos(t)], -1)
    if wear.shape == "short hair":  # three tufts on top
        outer[18:23, 1] -= np.array([0.02, 0.07, 0.10, 0.07, 0.02])
    outline = np.concatenate([outer, inner])
    shape = frame.at(outline[:, 0], outline[:, 1])
    canvas.shade([shape], 0.12, (0.0, 0.008))
    canvas.lay(HAIR, [shape], colour)
    centre = 0.42 if wear.shape == "short hair" else 0.0
    for s in np.linspace(-1, 1, 7 if wear.shape != "short hair" else 6):
        if abs(s) < 0.1:
            continue
        a = np.linspace(0.15, 1, 8)
        end = s * 1.25
        _line(canvas, body, centre * (1 - a) + 0.98 * np.sin(end) * a**0.8, -1.02 + (1.02 - 0.93 * np.cos(end)) * a**1.6, wear.line)
    if wear.shape == "a bun":
        _line(canvas, body, np.array([-0.26, 0.0, 0.26]), np.array([-1.02, -0.97, -1.02]), wear.trim, 0.06)


def _cap(canvas: Canvas, body: Body, wear: Wear):
    canvas.lay(HAIR, [_dome(body, 1.12, -0.32)], wear.colours[0])
    for x in (-0.5, 0.0, 0.5):
        t = np.linspace(0, 1, 8)
        _line(canvas, body, x * 1.1 * np.sin(t * 1.5), -1.1 + 0.75 * t**1.5, wear.line)
    canvas.lay(HAIR, [ellipse(body.face, 0, -1.12, 0.11, 0.07)], wear.trim)
    brim = smooth(np.array([
        [-0.86, -0.42], [0, -0.48], [0.86, -0.42], [1.04, -0.16], [0.55, -0.11], [0, -0.09], [-0.55, -0.11], [-1.04, -0.16],
    ]))
    points = body.face.at(brim[:, 0], brim[:, 1])
    canvas.shade([points], 0.15, (0.0, 0.010))
    canvas.lay(HAIR, [points], wear.trim)


def _beanie(canvas: Canvas, body: Body, wear: Wear):
    canvas.lay(HAIR, [ellipse(body.face, 0, -1.28, 0.28)], wear.trim)
    canvas.lay(HAIR, [_dome(body, 1.14, -0.42)], wear.colours[0])
    for x in np.linspace(-0.8, 0.8, 5):
        _line(canvas, body, np.array([0.6 * x, x]), np.array([-1.08 + 0.3 * abs(x), -0.5]), wear.line)
    _band(canvas, body, wear, -0.62, -0.28, 1.12)


def _hat(canvas: Canvas, body: Body, wear: Wear):
    side = np.array([[-0.82, -0.46], [-0.76, -0.95], [-0.5, -1.32]])
    crown = smooth(np.array([*side, [0.0, -1.26], *side[::-1] * (-1, 1)]), closed=False)
    canvas.lay(HAIR, [body.face.at(crown[:, 0], crown[:, 1])], wear.colours[0])
    _band(canvas, body, wear, -0.72, -0.48, 0.84)
    brim = [ellipse(body.face, 0, -0.42, 1.55, 0.20)]
    canvas.shade(brim, 0.15, (0.0, 0.012))
    canvas.lay(HAIR, brim, wear.colours[0])


HATS = {"a cap": _cap, "a beanie": _beanie, "a hat": _hat}


def _dome(body: Body, wide: float, low: float) -> Polygon:
    """A segment of a circle around the head, above `low`."""
    limit = np.arccos(-low / wide)
    t = np.linspace(-limit, limit, 32)
    return body.face.at(wide * np.sin(t), -wide * np.cos(t))


def _band(canvas: Canvas, body: Body, wear: Wear, top: float, bottom: float, half: float):
    x = np.linspace(-half, half, 11)
    bend = 0.05 * (1 - (x / half) ** 2)
    points = np.concatenate([body.face.at(x, top + bend), body.face.at(x[::-1], bottom + bend)])
    canvas.lay(HAIR, [points], wear.trim)


def _line(canvas: Canvas, body: Body, x, y, colour, width: float = 0.022):
    canvas.lay(HAIR, tube(body.face.at(np.asarray(x), np.asarray(y)), width * body.head, width * body.head), colour)
