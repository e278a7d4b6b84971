"""Shirts, dresses, trousers, skirts and shoes, each with its hems and trimmings."""

from __future__ import annotations

import numpy as np

from .body import SIDES, Body, smooth
from .canvas import Canvas, Fabric, band, disc, partial, tube
from .figure import LOWER, SHOES, UPPER, WHOLE, Wear

# How many segments of the arm a sleeve covers.
SLEEVES = {
    "a t-shirt": 0.62, "a long-sleeved shirt": 1.92, "a tank top": 0.0, "a short dress": 0.5, "a long dress": 0.0,
}
GOLD = (0.93, 0.76, 0.32)
WAIST = 0.178  # below the neck


def top(canvas: Canvas, body: Body, wear: Wear):
    """A shirt, tucked in."""
    _bodice(canvas, body, wear, UPPER)
    if wear.shape == "a long-sleeved shirt":
        _placket(canvas, body, wear, UPPER, WAIST)


def dress(canvas: Canvas, body: Body, wear: Wear):
    hem, flare = (0.40, 0.075) if wear.shape == "a short dress" else (0.545, 0.095)
    _skirt(canvas, body, wear, WHOLE, hem, flare)
    _bodice(canvas, body, wear, WHOLE)
    waistband(canvas, body, wear, WHOLE)


def lower(canvas: Canvas, body: Body, wear: Wear):
    fabric = Fabric(wear, body.pelvis)
    if wear.shape == "a skirt":
        _skirt(canvas, body, wear, LOWER, 0.40, 0.06)
        return
    reach = 1.9 if wear.shape == "trousers" else 0.72
    hips = body.torso.at(
        np.array([body.waist, body.hip + 0.004, body.hip + 0.002, 0, -body.hip - 0.002, -body.hip - 0.004, -body.waist]),
        np.array([WAIST, 0.215, 0.262, 0.285, 0.262, 0.215, WAIST]),
    )
    legs = [partial(body.path(side, "hip", "knee", "ankle"), reach) for side in SIDES]
    end = 1.05 * body.leg if wear.shape == "trousers" else 1.22 * body.leg
    for i, path in enumerate(legs):
        shapes = tube(path, 1.14 * body.leg, end, flat=True)
        if i:
            canvas.shade(shapes, 0.13, (-0.006, 0.004))
        canvas.lay(LOWER, shapes, fabric)
        canvas.lay(LOWER, [band(path, len(path) - 1, 0.02, 1.06 * end)], wear.trim)
    canvas.lay(LOWER, [hips], fabric)
    # Pockets and the fly.
    for sign in (-1, 1):
        x = sign * np.array([0.45, 0.62, 0.86]) * body.hip
        canvas.lay(LOWER, tube(body.torso.at(x, np.array([WAIST + 0.012, 0.215, 0.228])), 0.0026, 0.0026), wear.line)
    canvas.lay(LOWER, tube(body.torso.at(np.zeros(2), np.array([WAIST + 0.01, 0.262])), 0.0026, 0.0026), wear.line)


def waistband(canvas: Canvas, body: Body, wear: Wear, label: str):
    """A belt of trousers and dresses, and the band of a skirt."""
    x = body.waist * np.interp(WAIST, (0.15, 0.21), (1, body.hip / body.waist)) * 1.03
    across = np.linspace(-x, x, 7)
    bend = 0.006 * (1 - (across / x) ** 2)
    edge = [body.torso.at(across, WAIST - 0.009 + bend), body.torso.at(across[::-1], WAIST + 0.013 + bend)]
    canvas.shade([np.concatenate(edge)], 0.15, (0.0, 0.006))
    canvas.lay(label, [np.concatenate(edge)], wear.belt)
    if wear.shape not in ("a skirt", "shorts"):
        frame = body.torso
        canvas.lay(label, [_box(frame, -0.014, WAIST - 0.008, 0.014, WAIST + 0.024)], GOLD)
        canvas.lay(label, [_box(frame, -0.0075, WAIST - 0.001, 0.0075, WAIST + 0.017)], wear.belt)


def sleeve(canvas: Canvas, body: Body, wear: Wear, side: str):
    """The sleeve of a shirt or a dress, with its cuff."""
    reach = SLEEVES[wear.shape]
    if not reach:
        return
    label = UPPER if wear.shape in ("a t-shirt", "a long-sleeved shirt") else WHOLE
    path = partial(body.path(side, "shoulder", "elbow", "wrist"), reach)
    loose = 1.0 if len(path) > 2 else 1.25
    shapes = tube(path, 1.22 * body.arm, 1.06 * loose * body.arm, flat=True)
    canvas.shade(shapes, 0.13, (0.006, 0.007))
    canvas.lay(label, shapes, Fabric(wear, body.torso))
    cuff = 0.03 if len(path) > 2 else 0.02
    canvas.lay(label, [band(path, len(path) - 1, cuff, 1.14 * loose * body.arm)], wear.trim)


def shoe(canvas: Canvas, body: Body, wear: Wear, side: str):
    """A shoe with a sole and laces, or a boot with a sole and a cuff."""
    ankle, toe = body.foot(side)
    size, sign = body.leg, SIDES[side]
    heel = ankle + np.array([-0.30 * sign * size, 0.35 * size])
    if wear.shape == "boots":
        knee = body.joints[f"{side} knee"]
        shin = ankle + 0.55 * (knee - ankle)
        canvas.lay(SHOES, tube([ankle, shin], 0.86 * size, 0.98 * size, flat=True), wear.colours[0])
        canvas.lay(SHOES, [band([ankle, shin], 1, 0.026, 1.1 * size)], wear.trim)
    upper = [*tube([ankle, heel], 0.72 * size, 0.62 * size), *tube([heel, toe], 0.70 * size, 0.56 * size)]
    canvas.lay(SHOES, upper, wear.colours[0])
    # Flat on the ground.
    low = max(heel[1], toe[1]) + 0.46 * size
    x = np.sort([heel[0] - sign * 0.66 * size, toe[0] + sign * 0.60 * size])
    sole = np.array([[x[0], low - 0.006], [x[1], low - 0.006], [x[1] - 0.005, low + 0.014], [x[0] + 0.005, low + 0.014]])
    canvas.lay(SHOES, [sole], wear.sole)
    lace = wear.sole if wear.shape == "low shoes" else wear.trim
    middle = ankle + 0.42 * (toe - ankle)
    for step in (-0.13, 0.12) if wear.shape == "low shoes" else (-0.35, -0.75, -1.15):
        at = middle + step * (toe - ankle) if wear.shape == "low shoes" else ankle + np.array([0, step * 0.042])
        half = np.array([0.3 * size, -0.22 * sign * size]) if wear.shape == "low shoes" else np.array([0.36 * size, 0])
        canvas.lay(SHOES, tube([at - half, at + half], 0.0035, 0.0035), lace)


def _bodice(canvas: Canvas, body: Body, wear: Wear, label: str):
    bare = SLEEVES[wear.shape] == 0
    fabric, frame = Fabric(wear, body.torso), body.torso
    if bare:  # straps and a low neckline
        x = np.array([0.60, 0.66, 0.80, 0.98, 1.0])
        y = np.array([-0.002, -0.002, 0.055, 0.085, 0.10])
        side = np.stack([x * body.shoulder, y], -1)
        below = body.outline(1.03, WAIST + 0.006)
        low = below[len(below) // 2 - 4 : len(below) // 2]
        half = np.concatenate([side, np.stack([(low - frame.origin) @ frame.right, (low - frame.origin) @ frame.down], -1)])
        neck = smooth(np.array([[-0.40 * body.shoulder, -0.004], [-0.36 * body.shoulder, 0.03], [0, 0.058],
                                [0.36 * body.shoulder, 0.03], [0.40 * body.shoulder, -0.004]]), closed=False)
        outline = np.concatenate([half, half[::-1] * (-1, 1), neck])
        canvas.lay(label, [frame.at(outline[:, 0], outline[:, 1])], fabric)
        canvas.lay(label, tube(frame.at(neck[:, 0], neck[:, 1])[::2], 0.0055, 0.0055), wear.trim)
        return
    canvas.lay(label, [body.outline(1.05, WAIST + 0.006, neck=0.044)], fabric)
    if wear.shape == "a long-sleeved shirt":  # a collar with two points
        for sign in (-1, 1):
            points = frame.at(sign * np.array([0.0, 0.036, 0.050, 0.030]), np.array([0.022, -0.020, -0.004, 0.045]))
            canvas.shade([points], 0.15, (0.0, 0.006))
            canvas.lay(label, [points], wear.trim)
    else:
        t = np.linspace(-0.5 * np.pi, 0.5 * np.pi, 13)
        ring = frame.at(0.040 * np.sin(t), -0.010 + 0.030 * np.cos(t))
        canvas.lay(None, [ring], canvas.skin)
        canvas.lay(label, tube(ring, 0.0075, 0.0075), wear.trim)


def _placket(canvas: Canvas, body: Body, wear: Wear, label: str, hem: float):
    canvas.lay(label, tube(body.torso.at(np.zeros(2), np.array([0.03, hem])), 0.0026, 0.0026), wear.line)
    for y in (0.062, 0.10, 0.138):
        canvas.lay(label, [disc(body.torso.at(0.0, y), 0.0062)], wear.button)


def _skirt(canvas: Canvas, body: Body, wear: Wear, label: str, hem: float, flare: float):
    """From the waist to `hem` below the neck, with folds and a band at the hem."""
    frame, half = body.torso, body.hip + flare
    side = smooth(np.array([[body.waist * 1.02, WAIST - 0.01], [body.hip + 0.012, 0.235], [half, hem]]), closed=False)
    x = np.linspace(half, -half, 15)
    wave = 0.016 * (1 - (x / half) ** 2) + 0.004 * np.cos(x / half * 9)
    outline = np.concatenate([side, np.stack([x, hem + wave], -1), side[::-1] * (-1, 1)])
    shape = frame.at(outline[:, 0], outline[:, 1])
    canvas.shade([shape], 0.13, (0.0, 0.012))
    canvas.lay(label, [shape], Fabric(wear, body.pelvis))
    edge = np.concatenate([frame.at(x, hem + wave), frame.at(x[::-1] * (1 - 0.02), hem + wave[::-1] - 0.017)])
    canvas.lay(label, [edge], wear.trim)
    for t in (-0.55, -0.15, 0.3, 0.65):
        fold = frame.at(np.array([0.75 * t * body.waist, t * half]), np.array([WAIST + 0.05, hem - 0.004]))
        canvas.lay(label, tube(fold, 0.0010, 0.0030), wear.line)


def _box(frame, left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return frame.at(np.array([left, right, right, left]), np.array([top, top, bottom, bottom]))
