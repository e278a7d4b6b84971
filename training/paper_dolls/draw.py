"""Draws dolls: the picture, and where each part is seen. Layers from back to front, each a few filled polygons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .body import SIDES, Body, View
from .canvas import Canvas, Cloth, disc, ellipse, tube
from .coat import coat_back, coat_front
from .figure import FACE, HAIR, LOWER, SHOES, UPPER, WHOLE, Colour, Doll, Wear, mix
from .garments import dress, lower, shoe, sleeve, top, waistband
from .hair import hair_behind, hair_in_front
from .head import face


class Drawing(NamedTuple):
    """image: [H, W, 3] uint8; regions: for each part how much of a pixel it covers, [H, W] in 0..1; figure: the same of all
    cloths: what has a pattern or could have one, as it was laid
    """

    image: np.ndarray
    regions: dict[str, np.ndarray]
    figure: np.ndarray
    cloths: list[Cloth]


def draw_doll(doll: Doll, view: View) -> Drawing:
    body, wears = doll.body, doll.wears
    skin, hair, whole = wears[FACE].colours[0], wears[HAIR], wears.get(WHOLE)
    canvas = Canvas(view, list(wears), doll.background, skin)
    coat = whole if whole and whole.shape == "an open coat" else None

    _ground(canvas, body, doll.background.colours[1])
    hair_behind(canvas, body, hair)
    if coat:
        coat_back(canvas, body, coat)
    for side in SIDES:
        canvas.lay(None, tube(body.path(side, "hip", "knee", "ankle"), body.leg, 0.7 * body.leg), skin)
        shoe(canvas, body, wears[SHOES], side)
    _torso(canvas, body, skin)
    if LOWER in wears:
        lower(canvas, body, wears[LOWER])
    if UPPER in wears:
        top(canvas, body, wears[UPPER])
        waistband(canvas, body, wears[LOWER], LOWER)
    elif whole:
        dress(canvas, body, whole)
    for side in SIDES:
        _arm(canvas, body, skin, side, None if coat else wears.get(UPPER) or whole)
    if coat:
        coat_front(canvas, body, coat)
    face(canvas, body, wears[FACE])
    hair_in_front(canvas, body, hair)
    cover = canvas.cover
    return Drawing(
        np.ascontiguousarray((canvas.image * 255).round().clip(0, 255).astype(np.uint8).transpose(1, 2, 0)),
        dict(zip(wears, cover)), cover[-1], canvas.cloths,
    )


def _ground(canvas: Canvas, body: Body, colour: Colour):
    feet = np.stack([body.foot(side)[0] for side in SIDES])
    left, right = feet[:, 0].min() - 0.10, feet[:, 0].max() + 0.10
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    middle = np.array([(left + right) / 2, feet[:, 1].mean() + 0.045])
    canvas.lay(None, [middle + np.stack([(right - left) / 2 * np.cos(t), 0.028 * np.sin(t)], -1)], colour, figure=False)


def _torso(canvas: Canvas, body: Body, skin: Colour):
    neck, head = body.joints["neck"], body.joints["head"]
    canvas.lay(None, [body.outline(0.97, 0.24)], skin)
    canvas.lay(None, tube([neck + 0.03 * body.down, head], 1.05 * body.neck, body.neck), skin)
    # The head's shadow on the neck.
    canvas.shade([ellipse(body.face, 0, 0.2, 0.62, 1.0)], 0.12)


def _arm(canvas: Canvas, body: Body, skin: Colour, side: str, wear: Wear | None):
    """Arm, hand, and the sleeve of what is worn over it; None under a coat."""
    path = body.path(side, "shoulder", "elbow", "wrist")
    arm = tube(path, body.arm, 0.72 * body.arm)
    canvas.shade(arm, 0.13, (0.006, 0.007))
    canvas.lay(None, arm, skin)
    _hand(canvas, body, skin, side)
    if wear:
        sleeve(canvas, body, wear, side)


def _hand(canvas: Canvas, body: Body, skin: Colour, side: str):
    wrist = body.joints[f"{side} wrist"]
    frame, size = body.limb(side, "elbow", "wrist"), body.arm
    inner = -SIDES[side]
    fingers = [
        shape for x, length in ((-0.55, 1.75), (0.0, 1.95), (0.55, 1.75))
        for shape in tube([frame.at(x * size, 0.6 * size), frame.at(1.15 * x * size, length * size)], 0.34 * size, 0.30 * size)
    ]
    thumb = tube([frame.at(inner * 0.5 * size, 0.4 * size), frame.at(inner * 1.35 * size, 1.05 * size)], 0.36 * size, 0.28 * size)
    canvas.lay(None, [*fingers, *thumb, disc(wrist + 0.6 * size * frame.down, 0.92 * size)], skin)
    line = mix(skin, (0.45, 0.16, 0.10), 0.35)
    for x in (-0.28, 0.28):
        gap = [frame.at(x * size, 1.1 * size), frame.at(1.1 * x * size, 1.75 * size)]
        canvas.lay(None, tube(gap, 0.06 * size, 0.06 * size), line)
