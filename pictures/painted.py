"""What was painted on a picture in the host's mask editor.

The editor saves a picture with what was painted made transparent, and keeps its colours. It opens a cut-out with all outside of it
painted already, since that is transparent too: so the cut-out that was opened is looked for, and what it lacks is no stroke.
"""

from __future__ import annotations

import contextlib
import os

import folder_paths
import node_helpers
import torch
from PIL import Image

from .picture_file import picture_path, read_picture

# The editor saves under this name.
PREFIX = "clipspace"
MOST_FILES = 5000  # of the input folder that are looked at, the latest first
MOST_COMPARED = 32  # that are as large and may be it
# In values of 0..1: a browser's canvas and a WebP file change colours a little, at edges more.
NEAR = 3 / 255
ALIKE, OUTSIDE_PAINTED = 0.98, 0.995  # shares of the pixels
ROUNDING = 2 / 255


def is_from_mask_editor(name: str) -> bool:
    """Whether a picture of the input folder, by its name there, was saved by the mask editor."""
    return name.startswith(PREFIX) or os.path.basename(name).startswith(PREFIX)


def opened_cut_out(name: str, saved: torch.Tensor) -> torch.Tensor | None:
    """The alpha [1, H, W] of the cut-out on which a picture of the mask editor was painted with its outside left as it was; None
    where there is none in the input folder, or the outside was cleared. Of several that were cut out of one picture it is that
    with the least painted inside.

    name: of the saved picture there
    saved: [1, H, W, 4] in 0..1
    """
    height, width = saved.shape[1:3]
    painted, found = 1.0 - saved[0, ..., 3], []
    for other in _candidates(name, (width, height)):
        try:
            picture = read_picture(other)[0]
        except ValueError:  # damaged, or of another kind
            continue
        if picture.shape != saved.shape[1:]:
            continue
        outside = 1.0 - picture[..., 3]
        alike = ((picture[..., :3] - saved[0, ..., :3]).abs().amax(-1) <= NEAR)[picture[..., 3] > 0]
        covered = (painted >= outside - ROUNDING)[outside > 0]
        if alike.numel() and covered.numel() and alike.float().mean() >= ALIKE and covered.float().mean() >= OUTSIDE_PAINTED:
            found.append(picture[None, ..., 3])
    return min(found, key=lambda alpha: float((alpha - saved[..., 3]).clamp(min=0).sum()), default=None)


def strokes(saved: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor | None:
    """What was painted inside of a cut-out, [1, H, W] in 0..1; None where nothing was.

    saved: [1, H, W, 4] in 0..1; alpha: of the cut-out, as `opened_cut_out` gives it
    """
    mask = (alpha - saved[..., 3]).clamp(min=0)
    mask[mask <= ROUNDING] = 0
    return mask if mask.any() else None


def _candidates(name: str, size: tuple[int, int]) -> list[str]:
    """Names of pictures of this size in the input folder and the folders in it, the latest first, that the editor did not save."""
    root, found = folder_paths.get_input_directory(), []
    saved_at = os.stat(picture_path(name)).st_mtime
    for folder in (root, *(entry.path for entry in os.scandir(root) if entry.is_dir() and entry.name != PREFIX)):
        with contextlib.suppress(OSError):  # a folder that may not be read
            for entry in os.scandir(folder):
                if not is_from_mask_editor(entry.name) and entry.name.lower().endswith((".png", ".webp")):
                    with contextlib.suppress(OSError):  # a link that leads nowhere
                        found.append((entry.stat().st_mtime, os.path.relpath(entry.path, root)))
    names = []
    for _, other in sorted(found, key=lambda each: (each[0] > saved_at, -each[0], each[1]))[:MOST_FILES]:
        try:
            with node_helpers.pillow(lambda path: Image.open(path, formats=("PNG", "WEBP")), picture_path(other)) as picture:
                if picture.size == size and (picture.has_transparency_data or picture.mode == "RGBA"):
                    names.append(other)
        except Exception:  # no picture: every format has its own kinds of errors
            continue
        if len(names) == MOST_COMPARED:
            break
    return names
