"""What is read of ComfyUI's edit models. They put the tokens of their references behind the target's, and let a `post_input`
patch change both before the first block.

Of 0.16.3: Flux. Of 0.20.1: Qwen-Image too, and `reference_image_num_tokens`. Of 0.30.0: Krea 2 and Mage-Flow too.
"""

from __future__ import annotations

import math
from typing import Any

import comfy.conds
import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher

# Flux.1, Kontext, Flux.2, Klein and LongCat are one class, Qwen-Image and Qwen-Image-Edit another.
KINDS = {
    "comfy.ldm.flux.model.Flux",
    "comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",
    "comfy.ldm.krea2.model.SingleStreamDiT",
    "comfy.ldm.mage_flow.model.MageFlowTransformer2DModel",
}
COUNTS = "reference_image_num_tokens"


def require_edit_model(model: ModelPatcher):
    """raises: ValueError for a model that takes no references, or of which it is not known where their tokens are"""
    network = model.model.diffusion_model
    names = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(network).__mro__}
    if not names & KINDS:
        unet = "For a U-Net such as SD1.5 or SDXL, use Encode Appearance and Apply Parts2Whole. "
        raise ValueError(
            f"The MODEL is a {type(network).__name__}: it takes no reference pictures, or where their tokens are is not known. "
            "Expected Flux, Kontext, Flux.2, Klein, Qwen-Image-Edit, Krea 2 or Mage-Flow. "
            f"{unet * hasattr(network, 'input_blocks')}For another edit model, use its own nodes, without masks."
        )


def pixels_of(model) -> int:
    """How many pixels of a picture's side each position of its latent has."""
    return model.latent_format.spacial_downscale_ratio


def token_counts(
    options: dict[str, Any], network, x: torch.Tensor, latents: list[torch.Tensor], tokens: int
) -> list[int] | None:
    """How many tokens each reference has; None where the model leaves its references out.

    x: the target's latent; tokens: of target and references
    """
    if COUNTS in options:
        return list(options[COUNTS])
    if type(network).__name__ != "Flux":
        return None
    side = network.patch_size  # a host before 0.20.1, which does not tell
    target, *counts = (-(-each.shape[-2] // side) * -(-each.shape[-1] // side) for each in (x, *latents))
    return counts if target + sum(counts) == tokens else None


def token_side(size: tuple[int, int], tokens: int, frames: int = 1) -> int:
    """How many positions of a latent [.., frames, h, w] each side of a token has, where it became so many tokens.

    raises: ValueError where no square does
    """
    for side in range(1, 1 + max(size)):
        if frames * (-(-size[0] // side) * -(-size[1] // side)) == tokens:
            return side
    raise ValueError(
        f"A latent of {size[1]}x{size[0]} became {tokens} tokens, so it cannot be told which of them a mask or a region leaves: "
        "another node on the MODEL changes the tokens of its pictures. Remove that node, or Reference Parts."
    )


def kept_tokens(shows: torch.Tensor, tokens: int) -> torch.Tensor:
    """The numbers of the tokens of a reference that show anything of it.

    shows: [h, w] of the latent, bool
    returns: [K], int64
    """
    height, width = shows.shape
    side = token_side((height, width), tokens)
    padded = F.pad(shows[None].float(), (0, -width % side, 0, -height % side))
    return F.max_pool2d(padded, side).flatten().nonzero()[:, 0]


def constant(value) -> comfy.conds.CONDConstant:
    """What a conditioning carries to the model in its model_conds. The host makes one batch of equal ones only."""
    return comfy.conds.CONDConstant(value)


class KeptLatents(comfy.conds.CONDList):
    """Reference latents of which only a share becomes tokens."""

    def __init__(self, cond: list[torch.Tensor], share: float = 1.0):
        super().__init__(cond)
        self.share = share

    def _copy_with(self, cond):
        return type(self)(cond, self.share)

    def size(self):
        batch, channels, positions = super().size()
        return [batch, channels, math.ceil(positions * self.share)]
