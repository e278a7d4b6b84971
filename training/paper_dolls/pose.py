"""The pose of a paper doll as an IUV picture, which is how the release takes it."""

from __future__ import annotations

import numpy as np

from .body import Body, Point, View

# DensePose's parts, seen from the front.
TORSO, HEAD = 2, 24
HANDS = {"right": 3, "left": 4}
FEET = {"right": 6, "left": 5}
LEGS = {"right": (9, 13), "left": (10, 14)}
ARMS = {"right": (18, 22), "left": (17, 21)}


def draw_pose(body: Body, view: View) -> np.ndarray:
    """The pose as the release takes it: DensePose's part index 0..24 in blue, U in red, V in green. [H, W, 3] uint8"""
    iuv = np.zeros((view.height, view.width, 3), np.uint8)
    y, x = np.mgrid[: view.height, : view.width] + 0.5
    at = np.stack([x, y], -1)

    def segment(index: int, start: Point, end: Point, radius: float, end_radius: float):
        """U runs along a limb, V across it."""
        start, end = (view.offset + view.scale * point for point in (start, end))
        axis = end - start
        length = np.hypot(*axis) + 1e-6
        axis = axis / length
        along = (at - start) @ axis
        across = (at - start) @ np.array([axis[1], -axis[0]])
        u = np.clip(along / length, 0, 1)
        half = view.scale * (radius + (end_radius - radius) * u)
        outside = along - np.clip(along, 0, length)
        inside = across**2 + outside**2 <= half**2
        v = np.clip(0.5 + 0.5 * across / half, 0, 1)
        iuv[inside] = np.stack([u * 255, v * 255, np.full_like(u, index)], -1)[inside]

    joints = body.joints
    for side in ("right", "left"):
        upper, lower = LEGS[side]
        segment(upper, joints[f"{side} hip"], joints[f"{side} knee"], body.leg, 0.85 * body.leg)
        segment(lower, joints[f"{side} knee"], joints[f"{side} ankle"], 0.85 * body.leg, 0.72 * body.leg)
        ankle, toe = body.foot(side)
        segment(FEET[side], ankle, toe, 0.8 * body.leg, 0.6 * body.leg)
    segment(TORSO, joints["neck"] + 0.06 * body.down, joints["hip"], body.shoulder, body.hip)
    segment(HEAD, joints["neck"], joints["head"], body.neck, body.neck)
    segment(HEAD, joints["head"] + 0.01 * body.down, joints["head"] - 0.01 * body.down, body.head, body.head)
    for side in ("right", "left"):
        upper, lower = ARMS[side]
        segment(upper, joints[f"{side} shoulder"], joints[f"{side} elbow"], body.arm, 0.9 * body.arm)
        segment(lower, joints[f"{side} elbow"], joints[f"{side} wrist"], 0.9 * body.arm, 0.8 * body.arm)
        wrist = joints[f"{side} wrist"]
        segment(HANDS[side], wrist, wrist + 1e-3, 1.15 * body.arm, 1.15 * body.arm)
    return iuv
