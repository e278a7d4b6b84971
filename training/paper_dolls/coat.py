"""An open coat: its back behind the figure, fronts with lapels, pockets and buttons, and sleeves."""

from __future__ import annotations

import numpy as np

from .body import SIDES, Body
from .canvas import Canvas, Fabric, band, disc, partial, tube
from .figure import WHOLE, Wear, mix

HEM, FLARE = 0.50, 0.055


def coat_back(canvas: Canvas, body: Body, wear: Wear):
    canvas.lay(WHOLE, [body.outline(1.22, HEM - 0.01, FLARE)], mix(wear.colours[0], (0.05, 0.04, 0.08), 0.28))


def coat_front(canvas: Canvas, body: Body, wear: Wear):
    frame, fabric = body.torso, Fabric(wear, body.torso)
    outline = body.outline(1.22, HEM, FLARE, neck=0.046)
    half = len(outline) // 2
    for sign in (1, -1):
        side = outline[:half] if sign > 0 else outline[half:][::-1]
        inner = frame.at(sign * np.array([0.125, 0.058, 0.052, 0.038]), np.array([HEM + 0.004, 0.24, 0.13, -0.014]))
        front = np.concatenate([side, inner])
        canvas.shade([front], 0.15, (-sign * 0.008, 0.006))
        canvas.lay(WHOLE, [front], fabric)
        hem = np.array([side[-1], inner[0], inner[0] - 0.02 * frame.down, side[-1] - 0.02 * frame.down])
        canvas.lay(WHOLE, [hem], wear.trim)
        lapel = frame.at(sign * np.array([0.030, 0.050, 0.082, 0.066, 0.054]), np.array([-0.022, -0.014, 0.055, 0.075, 0.145]))
        canvas.shade([lapel], 0.15, (0.0, 0.006))
        canvas.lay(WHOLE, [lapel], wear.trim)
        pocket = frame.at(sign * np.array([0.080, 0.108, 0.108, 0.080]), np.array([0.272, 0.262, 0.280, 0.290]))
        canvas.lay(WHOLE, [pocket], wear.trim)
        if sign > 0:
            for y in (0.175, 0.225):
                canvas.lay(WHOLE, [disc(frame.at(0.070, y), 0.0075)], wear.button)
    for side in SIDES:
        path = partial(body.path(side, "shoulder", "elbow", "wrist"), 1.9)
        sleeve = tube(path, 1.42 * body.arm, 1.22 * body.arm, flat=True)
        canvas.shade(sleeve, 0.15, (0.006, 0.008))
        canvas.lay(WHOLE, sleeve, fabric)
        canvas.lay(WHOLE, [band(path, 2, 0.03, 1.32 * body.arm)], wear.trim)
