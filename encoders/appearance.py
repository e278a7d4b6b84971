"""The semantic-aware appearance encoder (arXiv 2404.15267, section 3.2): a U-Net that reads a reference picture.

It sees the picture's latent at timestep 0 with the label's text as cross-attention context, once, before sampling, and
keeps norm1 of every self-attention layer. It ends at the last of them.
"""

from __future__ import annotations

import weakref
from functools import cached_property
from typing import NamedTuple

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from comfy.model_sampling import ModelSamplingDiscrete, ModelSamplingDiscreteEDM

from ..attention.bank import Appearance, Bank, BlockAddress, Origin, Reference, select_tokens
from ..attention.patch.host.alone import latent_channels, read_norm1, takes_pooled_text
from ..attention.patch.host.changes import patched_schedule
from ..attention.patch.host.unet import context_channels, input_channels, require_unet
from ..attention.patch.host.vae import latents_of
from ..attention.patch.run import warn_of_size
from ..attention.reference_mask import token_mask
from ..pictures.frame import fit_to_frame
from ..pictures.part import LabelledPart, Part, escaped
from ..pictures.thumbnail import thumbnails
from .fingerprint import fingerprint, fingerprint_of_tensor


class EncodedPart(NamedTuple):
    """The references that a part's pictures became, and what else they depend on."""

    text_embedding: torch.Tensor
    pooled: torch.Tensor | None
    vae: weakref.ref
    frame: tuple[int, int, str]
    references: tuple[Reference, ...]

    def is_of(self, labelled: LabelledPart, vae, frame: tuple[int, int, str]) -> bool:
        same_label = torch.equal(self.text_embedding, labelled.text_embedding)
        same_pooled = self.pooled is labelled.pooled or (
            self.pooled is not None and labelled.pooled is not None and torch.equal(self.pooled, labelled.pooled)
        )
        return same_label and same_pooled and self.vae() is vae and self.frame == frame


class AppearanceEncoder:
    """A U-Net that encodes references, and remembers what it made of each part.

    patcher: the host's handle of the U-Net
    noise_level: the timestep, 0..999, at which it sees them; above 0 the latent is noised accordingly
    encoded: what each part became last, for as long as the host keeps the part: of a workflow queued again with one part
        changed, only that one is encoded
    """

    def __init__(self, patcher: ModelPatcher, noise_level: int = 0):
        self.patcher = patcher
        self.noise_level = noise_level
        self.encoded: weakref.WeakKeyDictionary[Part, EncodedPart] = weakref.WeakKeyDictionary()

    @cached_property
    def fingerprint(self) -> str:
        """Of the U-Net as it is patched, and the noise level: another one gives other features."""
        patched = patched_schedule(self.patcher)
        schedule = f"-{float(patched.sigma(torch.tensor([float(self.noise_level)]))):.6g}" if self.noise_level and patched else ""
        return f"{fingerprint(self.patcher)}-{self.noise_level}{schedule}"


def encode_appearance(
    encoder: AppearanceEncoder, vae, parts: tuple[LabelledPart, ...], width: int, height: int, fit: str = "stretch"
) -> Appearance:
    """Encodes every picture of every part.

    width, height: of the frame to which the pictures are fitted, in pixels
    fit: how, see `fit_to_frame`
    raises: ValueError where the labels were embedded by a text encoder that does not belong to the U-Net, where the VAE does not
        either, and where nothing is left of a mask in the frame
    """
    warn_of_size(encoder.patcher, width, height, "Set width and height of Encode Appearance.")
    frame = width, height, fit
    known = {
        _key(labelled): encoded.references for labelled in parts
        if (encoded := encoder.encoded.get(labelled.part)) and encoded.is_of(labelled, vae, frame)
    }
    new = {_key(labelled): labelled for labelled in parts if _key(labelled) not in known}.values()
    progress = comfy.utils.ProgressBar(2 * sum(labelled.part.image.shape[0] for labelled in new))
    for labelled in new:
        _check_context(encoder, labelled)
    if new:
        _check_vae(encoder, vae)
    # First the VAE for all, then the U-Net for all: where memory is short, one need not make room for the other in turns.
    pictures = [_encode_pictures(vae, labelled.part, frame, progress) for labelled in new]
    vae_fingerprint = fingerprint(vae.patcher) if new else ""
    for labelled, latents_and_masks in zip(new, pictures):
        origin = Origin(encoder.fingerprint, vae_fingerprint, fingerprint_of_tensor(labelled.text_embedding), frame)
        references = []
        for (latent, mask), thumbnail in zip(latents_and_masks, thumbnails(labelled.part)):
            comfy.model_management.throw_exception_if_processing_interrupted()
            banks = encode_reference(encoder, latent, mask, labelled, width, height)
            if not any(len(bank.tokens) for bank in banks.values()):
                raise ValueError(
                    f"Part '{escaped(labelled.part.label)}': nothing is left of the mask at {width}x{height}, so nothing of the "
                    "picture would be used. Make the mask larger or less faint, or the frame of Encode Appearance larger."
                )
            references.append(Reference(labelled.part.label, banks, labelled.text_embedding.shape[-1], origin, thumbnail))
            progress.update(1)
        known[_key(labelled)] = tuple(references)
        encoder.encoded[labelled.part] = EncodedPart(
            labelled.text_embedding, labelled.pooled, weakref.ref(vae), frame, known[_key(labelled)]
        )
    return Appearance(tuple(reference for labelled in parts for reference in known[_key(labelled)]))


def _key(labelled: LabelledPart) -> tuple[Part, int, int]:
    """One part may come with the embeddings of several text encoders."""
    return labelled.part, id(labelled.text_embedding), id(labelled.pooled)


def _encode_pictures(vae, part: Part, frame: tuple[int, int, str], progress) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Latents [1, 4, H/8, W/8] and masks [H, W] of the part's pictures"""
    encoded = []
    for picture, mask in zip(*fit_to_frame(part, *frame)):
        comfy.model_management.throw_exception_if_processing_interrupted()
        # Channels first in memory: torch's GroupNorm on a CPU loses three digits with channels last.
        encoded.append((vae.encode(picture.movedim(-1, 0).contiguous().movedim(0, -1)[None]), mask))
        progress.update(1)
    return encoded


def encode_reference(
    encoder: AppearanceEncoder, latent: torch.Tensor, mask: torch.Tensor, labelled: LabelledPart, width: int, height: int
) -> dict[BlockAddress, Bank]:
    """latent: [1, 4, H/8, W/8] as the VAE gives it; mask: [H, W] in 0..1"""
    banks = {}

    def keep_norm1(address: BlockAddress, features: torch.Tensor, grid: tuple[int, int]):
        bank = select_tokens(features, token_mask(mask, grid))
        banks[address] = bank._replace(tokens=bank.tokens.to(comfy.model_management.intermediate_device()))

    read_norm1(
        encoder.patcher, latent, encoder.noise_level, labelled.text_embedding, labelled.pooled, (width, height), keep_norm1
    )
    return banks


def model_as_encoder(model: ModelPatcher, noise_level: int) -> AppearanceEncoder:
    """Uses any U-Net as appearance encoder.

    raises: ValueError for a model without U-Net self-attention, for one that asks for more than a latent, and for one
        without timesteps
    """
    unet = require_unet(model)
    sampling = model.get_model_object("model_sampling")
    if not isinstance(sampling, ModelSamplingDiscrete) or isinstance(sampling, ModelSamplingDiscreteEDM):
        raise ValueError(
            f"The MODEL's noise schedule ({type(sampling).__mro__[1].__name__}) has no timesteps, at one of which the encoder "
            "would see the references. Connect the MODEL from before a ModelSampling node, or one of the usual kind."
        )
    if input_channels(unet) != latent_channels(model):
        raise ValueError(
            f"The MODEL takes {input_channels(unet)} channels, not {latent_channels(model)}: an inpainting or "
            "editing model cannot encode references. Connect a plain text-to-image model of the same architecture."
        )
    return AppearanceEncoder(model, noise_level)


def _check_context(encoder: AppearanceEncoder, labelled: LabelledPart):
    expected, got = context_channels(encoder.patcher), labelled.text_embedding.shape[-1]
    if got != expected:
        raise ValueError(
            f"Part '{escaped(labelled.part.label)}': its label was embedded with {got} channels, but the appearance encoder "
            f"expects {expected}. Connect Encode Part Labels to the CLIP that belongs to the encoder."
        )
    if takes_pooled_text(encoder.patcher) and labelled.pooled is None:
        raise ValueError(
            f"Part '{escaped(labelled.part.label)}': the appearance encoder needs the label's pooled text, and the CLIP gave none. "
            "Connect Encode Part Labels to the CLIP that belongs to the encoder."
        )


def _check_vae(encoder: AppearanceEncoder, vae):
    """Before any work: a VAE of another kind."""
    mend = "Connect the VAE that belongs to the appearance encoder, for example from the same Load Parts2Whole or Load Checkpoint."
    expected, given = latent_channels(encoder.patcher), latents_of(vae)
    if given is None:
        raise ValueError(f"The VAE is empty: the checkpoint that it comes from holds none. {mend}")
    channels = expected if given.channels is None else given.channels
    if given.of != "pictures":
        raise ValueError(
            f"The VAE is one for {given.of}, with latents of {channels} channels: the appearance encoder takes those of pictures, "
            f"with {expected}. {mend}"
        )
    if channels != expected:
        raise ValueError(f"The VAE gives latents of {channels} channels, but the appearance encoder takes {expected}. {mend}")
