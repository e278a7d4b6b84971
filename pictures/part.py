"""A part: pictures of one thing to wear, their masks and its label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

# The labels that the release was trained with (arXiv 2404.15267, section 4.1). Any other text works as far as CLIP knows it.
LABELS = ("face", "hair or headwear", "upper body clothes", "lower body clothes", "whole body clothes", "shoes")
LONGEST_LABEL = 4096  # characters; CLIP reads 77 tokens


@dataclass(frozen=True, eq=False)
class Part:
    """One thing to wear, from one or more reference pictures.

    label: what it is, as a text for CLIP
    image: [B, H, W, 3 or 4] in 0..1; a fourth channel is alpha, not premultiplied
    mask: [B, H', W'] in 0..1, 1 where the picture shows the part; None: alpha, or the whole picture where there is none
    """

    label: str
    image: torch.Tensor
    mask: torch.Tensor | None


class LabelledPart(NamedTuple):
    """A part with its label's embedding.

    text_embedding: [1, 77, D], last hidden state after the final layer norm; None for edit models, which read labels in the prompt
    pooled: [1, D'], for U-Nets that ask for it (SDXL); None where the text encoder gives none
    """

    part: Part
    text_embedding: torch.Tensor | None
    pooled: torch.Tensor | None


def make_part(label: str, image: torch.Tensor, mask: torch.Tensor | None = None) -> Part:
    """Checks the pictures of a part.

    image: [B, H, W, 3 or 4] in 0..1
    mask: [B or 1, H', W'] or [H', W'] in 0..1, of any size
    raises: ValueError for an empty label, one that is longer than LONGEST_LABEL, values that are not finite, a mask that is
        zero everywhere, and shapes that do not fit each other
    """
    label = label.strip()
    if not label:
        raise ValueError("The label is empty: choose what the part is, for example 'upper body clothes', in the part's node.")
    if len(label) > LONGEST_LABEL:
        raise ValueError(
            f"The label has {len(label)} characters, and CLIP reads its first 77 tokens: shorten it, in the part's node, to "
            f"{LONGEST_LABEL} characters at most."
        )
    part = f"Part '{escaped(label)}'"
    if image.ndim != 4 or image.shape[-1] not in (3, 4):
        raise ValueError(f"{part}: expected an IMAGE of shape [B, H, W, 3 or 4], got {list(image.shape)}.")
    require_finite(image, f"{part}: the picture")
    if mask is not None:
        mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
        if mask.ndim != 3 or mask.shape[0] not in (1, image.shape[0]):
            raise ValueError(
                f"{part}: expected one mask, or one for each of the {image.shape[0]} pictures, got a MASK of shape "
                f"{list(mask.shape)}."
            )
        require_finite(mask, f"{part}: the mask")
        mask = mask.clamp(0.0, 1.0).expand(image.shape[0], -1, -1)

    empty = mask_or_alpha(image, mask).flatten(1).amax(1) <= 0
    if empty.any():
        which = "" if image.shape[0] == 1 else f" {int(empty.nonzero()[0])} of the batch"
        if mask is None:
            raise ValueError(
                f"{part}: the picture{which} is transparent everywhere, so nothing of it would be used. Take a picture "
                "that shows the part, or say by a mask where in it the part is."
            )
        raise ValueError(
            f"{part}: the mask of the picture{which} is zero everywhere, so nothing of it would be used. Expected 1 where "
            "the picture shows the part: paint or connect another mask, or invert it with the Invert Mask node."
        )
    return Part(label, image, mask)


def escaped(text: str) -> str:
    """A user's text for one line of a log or a message: shortened, with line breaks and what is not printable escaped."""
    return repr(text if len(text) <= 80 else text[:79] + "…")[1:-1]


def require_finite(image: torch.Tensor, what: str):
    """raises: ValueError for NaN or infinite values"""
    if not torch.isfinite(image).all():
        raise ValueError(
            f"{what} holds NaN or infinite values. The node that made it is at fault, often a VAE Decode in half precision: "
            "start ComfyUI with --fp32-vae, or load the picture from a file."
        )


def mask_or_alpha(image: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Where the pictures show the part: the mask, else alpha, else everywhere. [B, H, W] in 0..1"""
    if mask is not None:
        return mask
    return image[..., 3] if image.shape[-1] == 4 else torch.ones(image.shape[:3])
