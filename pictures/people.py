"""Several people in one frame: their poses in one raw IUV picture, and for each of them the places that are theirs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import comfy.model_management
import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from scipy import ndimage

from .pose_kind import require_iuv
from .pose_region import HEAD, TORSO

MOST_PEOPLE = 4
NOBODY = -1
# A head or torso that is smaller than this share of the largest one in the picture is a stray piece.
SMALLEST = 0.1
CORNERS = np.ones((3, 3), bool)  # pixels that touch at a corner are connected


class Place(NamedTuple):
    """Left edge and width of a column of the frame, as shares of the frame's width."""

    x: float
    width: float


class People(NamedTuple):
    """iuv: [B, H, W, 3], everyone's pose; regions: [N, B, H, W] in 0..1, each person's, which nowhere overlap"""

    iuv: torch.Tensor
    regions: torch.Tensor


def read_places(text: str) -> list[Place]:
    """Places as users write them: `0 0.5, 0.4 0.6`.

    raises: ValueError for anything but pairs of numbers
    """
    places = []
    for pair in filter(None, (each.strip() for each in text.split(","))):
        try:
            place = Place(*map(float, pair.split()))
        except (TypeError, ValueError):
            place = None
        if place is None or not (-1 <= place.x <= 1 and 0 < place.width <= 2):
            raise ValueError(
                f"People in One Frame cannot read the place '{pair[:40]}'. Expected a left edge of -1 to 1 and a width above 0 up "
                "to 2 for each pose, as in '0 0.5, 0.4 0.6'."
            )
        places.append(place)
    return places


def people_in_frame(
    poses: Sequence[torch.Tensor], width: int, height: int, places: Sequence[Place], grow: float, soft: float
) -> People:
    """Lays poses into a frame, and divides the frame among the people.

    poses: each [B, H, W, C >= 3] in 0..1, raw IUV. Of several, each shows one person, and later ones stand in front. A single one
        may show several people, who are told apart by their bodies, from left to right
    width, height: of the frame, in pixels
    places: the column of each pose, which it fills as far as its shape lets it, standing on the lower edge; empty: side by side
    grow: how far a region reaches beyond its person's body, as a share of the frame's height; 1: the whole frame is divided. A
        place is the nearest person's
    soft: over which share of the frame's height a region rises from its edge to 1; on its person's body it is 1
    raises: ValueError for other pictures, and where people cannot be told apart
    """
    if not 0 < len(poses) <= MOST_PEOPLE:
        raise ValueError(f"People in One Frame got {len(poses)} pose pictures. Connect one to {MOST_PEOPLE}.")
    if places and len(places) != len(poses):
        raise ValueError(f"There are {len(places)} places for {len(poses)} pose pictures. Give one place for each, or none.")
    for number, pose in enumerate(poses, 1):
        require_iuv(pose, f"Pose picture {number}")
    batch, shape = max(map(len, poses)), (height, width)
    iuv, owners = torch.zeros(batch, *shape, 3), torch.full((batch, *shape), NOBODY)
    for number, pose in enumerate(poses):
        _lay(pose, places[number] if places else Place(number / len(poses), 1 / len(poses)), number, iuv, owners)
    owners = owners.numpy() if len(poses) > 1 else np.stack([told_apart(part_index(each)) for each in iuv])
    counts = {len(poses)} if len(poses) > 1 else {int(each.max()) + 1 for each in owners}
    if len(counts) > 1:
        raise ValueError(
            f"The pose pictures of the batch show {' or '.join(map(str, sorted(counts)))} people. Expected the same number in each."
        )
    if max(counts) > MOST_PEOPLE:
        raise ValueError(f"The pose picture shows {max(counts)} people. At most {MOST_PEOPLE} have regions of their own.")
    regions = [_divide(each, *counts, grow * height if grow < 1 else math.inf, soft * height) for each in owners]
    return People(iuv, torch.from_numpy(np.stack(regions, 1)))


def part_index(iuv: torch.Tensor) -> np.ndarray:
    """[..., 3] in 0..1 -> [...], DensePose's part index 0..24"""
    return (iuv[..., 2] * 255).round().numpy().astype(np.uint8)


def _lay(pose: torch.Tensor, place: Place, number: int, iuv: torch.Tensor, owners: torch.Tensor):
    """Lays a pose into iuv [B, H, W, 3], and its person's number into owners [B, H, W]. Part indices are not interpolated."""
    height, width = iuv.shape[1:3]
    scale = min(place.width * width / pose.shape[2], height / pose.shape[1])
    tall, wide = (max(1, round(scale * side)) for side in pose.shape[1:3])
    pose = pose[..., :3].cpu().float()
    if (tall, wide) != pose.shape[1:3]:
        pose = rearrange(pose, "b h w c -> b c h w")
        pose = rearrange(F.interpolate(pose, size=(tall, wide), mode="nearest-exact"), "b c h w -> b h w c")
    left = round((place.x + place.width / 2) * width - wide / 2)
    begin, end = max(left, 0), min(left + wide, width)
    seen = pose[:, :, begin - left:max(end, begin) - left][torch.arange(len(iuv)) % len(pose)]
    body = torch.from_numpy(part_index(seen) > 0)
    if not body.flatten(1).any(1).all():
        raise ValueError(f"Pose picture {number + 1} shows no body in the frame. Connect another, or give it another place.")
    target = iuv[:, height - tall:, begin:end], owners[:, height - tall:, begin:end]
    target[0][body], target[1][body] = seen[body], number


def told_apart(index: np.ndarray) -> np.ndarray:
    """Whose body each pixel shows, 0 to N - 1 from left to right, or NOBODY. A person is a connected body with a torso, or with a
    head where no torso is seen; what is not connected to one belongs to the nearest.

    index: [H, W], DensePose's part index
    raises: ValueError where nobody is seen, and for a body that has not one head where others have one
    """
    bodies, count = ndimage.label(index > 0, CORNERS)
    core = np.isin(index, TORSO if np.isin(index, TORSO).any() else HEAD)
    sizes = ndimage.sum_labels(core, bodies, range(1, count + 1))
    if not core.any():
        raise ValueError("The pose picture shows neither a torso nor a head, so nobody is found in it. Connect another.")
    people = [number for number, size in enumerate(sizes, 1) if size >= SMALLEST * sizes.max()]
    people.sort(key=lambda number: ndimage.center_of_mass(bodies == number)[1])
    owners = np.full(index.shape, NOBODY)
    for person, number in enumerate(people):
        owners[bodies == number] = person
    distance, (row, column) = ndimage.distance_transform_edt(owners == NOBODY, return_indices=True)
    for piece in {*range(1, count + 1)} - {*people}:
        where = np.argwhere(bodies == piece)
        y, x = where[distance[tuple(where.T)].argmin()]
        owners[bodies == piece] = owners[row[y, x], column[y, x]]
    _require_a_head_each(index, owners, len(people))
    return owners


def _require_a_head_each(index: np.ndarray, owners: np.ndarray, people: int):
    heads, count = ndimage.label(np.isin(index, HEAD), CORNERS)
    sizes = np.bincount(heads.flat)[1:]
    of = [int(owners[heads == number][0]) for number in range(1, count + 1) if sizes[number - 1] >= SMALLEST * sizes.max()]
    for person in range(people) if of else ():
        if of.count(person) != 1:
            raise ValueError(
                f"In the pose picture, body {person + 1} from the left has {of.count(person)} heads, so people cannot be told "
                "apart: they touch, or one hides a part of another. Connect a pose picture for each person."
            )


def _divide(owners: np.ndarray, people: int, grow: float, soft: float) -> np.ndarray:
    """The regions of the people [N, H, W]. owners: [H, W], whose body it is; grow, soft: in pixels"""
    for person in range(people):
        if not (owners == person).any():
            raise ValueError(
                f"Person {person + 1} is hidden behind others. Give the poses other places, or connect them in another order: "
                "later ones stand in front."
            )
    comfy.model_management.throw_exception_if_processing_interrupted()
    distances = np.stack([ndimage.distance_transform_edt(owners != person) for person in range(people)])
    nearest = distances.argmin(0)
    regions = []
    for person, distance in enumerate(distances):
        comfy.model_management.throw_exception_if_processing_interrupted()
        region = (nearest == person) & (distance <= grow)
        inside = np.ones(region.shape)
        if soft and not region.all():
            inside = np.minimum(ndimage.distance_transform_edt(region) / (1 + soft), 1)
        regions.append(np.where(owners == person, 1, inside * region))
    return np.stack(regions).astype(np.float32)
