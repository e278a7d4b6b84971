"""What the appearance encoder keeps of a reference: one bank per self-attention layer of the U-Net."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch


class BlockAddress(NamedTuple):
    """Where a transformer block sits in ComfyUI's U-Net: the host's own (block name, block number, transformer index)."""

    name: str
    number: int
    index: int


class Bank(NamedTuple):
    """norm1 features of one reference at one self-attention layer, inside the mask.

    tokens: [K, C], the features of the tokens with mask > 0, multiplied by the mask
    removed: the number of tokens with mask 0
    """

    tokens: torch.Tensor
    removed: int


class Origin(NamedTuple):
    """What a reference was encoded with.

    encoder, vae, text: fingerprints of the appearance encoder, of the VAE and of the label's embedding
    frame: width and height in pixels, and how the picture was fitted to it
    """

    encoder: str
    vae: str
    text: str
    frame: tuple[int, int, str]


class Reference(NamedTuple):
    """One encoded reference picture: its label and its bank at every self-attention layer.

    context_channels: width of the text that the encoder's U-Net takes, which tells architectures apart
    thumbnail: [h, w, 3], uint8, what it shows; None where that is not known
    """

    label: str
    banks: Mapping[BlockAddress, Bank]
    context_channels: int
    origin: Origin
    thumbnail: torch.Tensor | None = None


class Appearance(NamedTuple):
    """Everything to wear, encoded: the references that the target attends to."""

    references: tuple[Reference, ...]


def select_tokens(features: torch.Tensor, mask: torch.Tensor) -> Bank:
    """Keeps the tokens of a reference that its mask lets through.

    features: [T, C]
    mask: [T] in 0..1, from `reference_mask.token_mask`; on the CPU, since to count what a GPU kept waits for it
    """
    kept = mask.nonzero()[:, 0]
    tokens = features[kept.to(features.device)] * mask[kept, None].to(features)
    return Bank(tokens, features.shape[0] - tokens.shape[0])
