"""Decoupled cross-attention to CLIP image tokens (arXiv 2404.15267, section 3.4).

The queries of every cross-attention layer attend to the text through to_k and to_v, and apart from that to the image
tokens through to_k_dc and to_v_dc. The two outputs are added.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn as nn

from .bank import BlockAddress

MAX_IMAGE_TOKENS = 6
KeysAndValues = tuple[torch.Tensor, torch.Tensor]


class ImageAttention(nn.Module):
    """The projections of the image tokens at every cross-attention layer of a U-Net.

    channels: width of each layer
    token_channels, context_channels: width of an image token, and of the text beside which they were trained
    operations: a module with Linear: torch.nn, or one of the host's
    """

    def __init__(self, channels: Mapping[BlockAddress, int], token_channels: int, context_channels: int, operations):
        super().__init__()
        self.addresses = tuple(channels)
        self.token_channels, self.context_channels = token_channels, context_channels
        for name in ("to_k_dc", "to_v_dc"):
            layers = [operations.Linear(token_channels, width, bias=False) for width in channels.values()]
            setattr(self, name, nn.ModuleList(layers))

    def forward(self, tokens: torch.Tensor) -> dict[BlockAddress, KeysAndValues]:
        """[1, N, D] -> for every layer keys and values [1, N, C]"""
        return {
            address: (to_k(tokens), to_v(tokens))
            for address, to_k, to_v in zip(self.addresses, self.to_k_dc, self.to_v_dc)
        }
