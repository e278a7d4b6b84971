"""Parts as references of an edit model: a VAE encodes their cut-outs."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
import torch.nn.functional as F

from ..attention.patch.host.vae import latents_of
from ..pictures.cut_out import CutOut, cut_outs
from ..pictures.part import LabelledPart, escaped


def encode_references(
    vae, parts: tuple[LabelledPart, ...], fit: str, megapixels: float
) -> list[tuple[str, torch.Tensor, torch.Tensor]]:
    """The label, the latent and where it shows the part [h, w], bool, of every picture of every part.

    fit, megapixels: see `cut_outs`
    raises: ValueError for an empty VAE, and where nothing is left of a mask at this size
    """
    if latents_of(vae) is None:
        raise ValueError("The VAE is empty: the checkpoint that it comes from holds none. Connect Load VAE with the edit model's.")
    progress = comfy.utils.ProgressBar(sum(len(labelled.part.image) for labelled in parts))
    references = []
    for labelled in parts:
        for cut in cut_outs(labelled.part, fit, megapixels):
            comfy.model_management.throw_exception_if_processing_interrupted()
            references.append((labelled.part.label, *_encode(vae, labelled.part.label, cut)))
            progress.update(1)
    return references


def _encode(vae, label: str, cut: CutOut) -> tuple[torch.Tensor, torch.Tensor]:
    latent = vae.encode(cut.image[None])
    shows = F.adaptive_max_pool2d(cut.mask[None], tuple(latent.shape[-2:]))[0] > 0
    if not shows.any():
        height, width = cut.mask.shape
        raise ValueError(
            f"Part '{escaped(label)}': nothing is left of the mask at {width}x{height}, so nothing of the picture would be used. "
            "Make the mask larger or less faint, choose `fit` crop, or raise `megapixels`."
        )
    return latent, shows
