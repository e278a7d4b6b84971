"""From DensePose's maps to raw IUV (Güler et al., DensePose: Dense Human Pose Estimation In The Wild, arXiv 1802.00434).

A chart model gives each person a box and four maps: body or not (coarse), which part (fine), and for each part the two coordinates
U and V on its surface.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

PARTS = 24  # the numbers 1..24; 0 is no body
CHARTS = PARTS + 1
COARSE = (2, 15)  # channels that models have, of which the first is no body
# A box may lie over the border, but one that is so many times the picture's side is none.
LARGEST_BOX = 4


class People(NamedTuple):
    """Everyone found in a picture, in the model's order: float32.

    boxes: [N, 4], x0 y0 x1 y1 in pixels of that picture
    coarse: [N, 2 or 15, h, w]
    fine, u, v: [N, 25, h, w]; u and v about 0..1
    """

    boxes: torch.Tensor
    coarse: torch.Tensor
    fine: torch.Tensor
    u: torch.Tensor
    v: torch.Tensor


def find_people(output: Any) -> People:
    """Tells a model's tensors by their shapes; the three of 25 channels by their names, or else by their order fine, u, v.

    output: a dictionary, tuple or list of tensors
    raises: ValueError for other tensors, and for maps with NaN or infinite values
    """
    named = output.items() if isinstance(output, dict) else enumerate(output) if isinstance(output, (tuple, list)) else ()
    tensors = [(str(name).lower(), each) for name, each in named if isinstance(each, torch.Tensor)]
    boxes = [each for _, each in tensors if each.ndim == 2 and each.shape[1] == 4]
    coarse = [each for _, each in tensors if each.ndim == 4 and each.shape[1] in COARSE]
    charts = {name: each for name, each in tensors if each.ndim == 4 and each.shape[1] == CHARTS}
    if len(boxes) == 1 and not len(boxes[0]):
        return People(boxes[0].float(), *(torch.zeros(0, channels, 1, 1) for channels in (COARSE[0], CHARTS, CHARTS, CHARTS)))
    maps = *coarse, *charts.values()
    if (len(boxes), len(coarse), len(charts)) != (1, 1, 3) or any(
        len(each) != len(boxes[0]) or not each.numel() for each in maps
    ):
        shapes = ", ".join(str(list(each.shape)) for _, each in tensors) or "no tensors"
        raise ValueError(
            f"The model gives {shapes}. Expected those of a DensePose chart model for N people: boxes [N, 4], one map of "
            f"{COARSE[0]} or {COARSE[1]} channels, and three of {CHARTS}: parts, U and V."
        )
    by_name = {_chart(name): each for name, each in charts.items()}
    fine, u, v = (by_name[name] for name in ("fine", "u", "v")) if {*by_name} == {"fine", "u", "v"} else charts.values()
    people = People(*(each.float() for each in (boxes[0], coarse[0], fine, u, v)))
    if not all(bool(each.isfinite().all()) for each in people):
        raise ValueError(
            "The model gives NaN or infinite values. Take its export in full precision (fp32), or another picture."
        )
    return people


def scaled(people: People, x: float, y: float) -> People:
    """The same people in a picture x times as wide and y times as high."""
    return people._replace(boxes=people.boxes * people.boxes.new_tensor([x, y, x, y]))


def largest_first(boxes: torch.Tensor, height: int, width: int) -> list[int]:
    """Numbers of the boxes that a picture shows, by how much of them it shows. boxes: [N, 4]"""
    limits = boxes.new_tensor([width, height, width, height])
    shown = boxes.clamp(min=boxes.new_zeros(4), max=limits)
    areas = ((shown[:, 2] - shown[:, 0]).clamp(min=0) * (shown[:, 3] - shown[:, 1]).clamp(min=0)).tolist()
    return sorted((i for i, area in enumerate(areas) if area > 0), key=lambda i: -areas[i])


def iuv_of(people: People, number: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """One person as raw IUV: V in red, U in green, the part index in blue, as in a file of (I, U, V) that was written as BGR.

    The part is the largest channel of the fine map where that of the coarse map is not 0, both resized to the box in whole pixels;
    U and V come from the part's own channel, as whole numbers of 255.

    number: of the person
    returns: [height, width, 3] in 0..1, and the body [height, width], 0 or 1: on the CPU
    raises: ValueError for a box that is much larger than the picture
    """
    x0, y0, x1, y1 = (round(edge, 3) for edge in people.boxes[number].tolist())  # 63.99999 is 64
    left, top, wide, high = int(x0 // 1), int(y0 // 1), max(int(x1 - x0), 1), max(int(y1 - y0), 1)
    if wide > LARGEST_BOX * width or high > LARGEST_BOX * height:
        raise ValueError(
            f"The model gives a box of {wide}x{high} pixels for a picture of {width}x{height}. Take another DensePose model."
        )
    size = high, wide
    part = _largest(people.fine[number], size) * (_largest(people.coarse[number], size) > 0)
    u, v = torch.zeros(size, device=part.device), torch.zeros(size, device=part.device)
    for index in part.unique().tolist():
        if index:
            here = part == index
            u[here] = _resized(people.u[number, index], size)[here]
            v[here] = _resized(people.v[number, index], size)[here]
    boxed = torch.stack([(v.clamp(0, 1) * 255).floor(), (u.clamp(0, 1) * 255).floor(), part.float()], -1).cpu() / 255
    iuv = torch.zeros(height, width, 3)
    rows, columns = slice(max(top, 0), max(top + high, 0)), slice(max(left, 0), max(left + wide, 0))
    seen = iuv[rows, columns]
    seen.copy_(boxed[rows.start - top:, columns.start - left:][:seen.shape[0], :seen.shape[1]])
    return iuv, (iuv[..., 2] > 0).float()


def _chart(name: str) -> str:
    """fine, u or v, where a tensor's name says so."""
    return "fine" if "fine" in name else name.split("_")[-1]


def _resized(channel: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """channel: [h, w]"""
    return F.interpolate(channel[None, None], size, mode="bilinear", align_corners=False)[0, 0]


def _largest(maps: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """At each pixel the number of the largest channel, the first of equal ones; one channel at a time, since photographs are large.

    maps: [K, h, w]
    """
    largest, number = _resized(maps[0], size), torch.zeros(size, dtype=torch.long, device=maps.device)
    for i, channel in enumerate(maps[1:], 1):
        values = _resized(channel, size)
        number[values > largest] = i
        largest = torch.maximum(largest, values)
    return number
