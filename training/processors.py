"""The method inside diffusers' U-Nets, as attention processors. The maths is the pack's own, from `attention/`.

All that belongs to one forward pass comes in by cross_attention_kwargs; the processors keep no state.
"""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0
from einops import rearrange

from attention.bank import select_tokens
from attention.reference_mask import token_mask
from attention.shared_attention import ReferenceGroup, join_references, shared_attention

from .hints import LayerHints

Banks = dict[str, torch.Tensor]


class References(NamedTuple):
    """What the reference U-Net kept of all references of a batch, and whom they belong to.

    banks: norm1 features by layer, each [R, T, C]
    masks: [R, H, W] in 0..1
    of: for each picture to draw, the numbers of its references
    grids: (h, w) of the tokens, by their number T
    hints: takes what each layer does with them, to teach it; or None
    """

    banks: Banks
    masks: torch.Tensor
    of: tuple[tuple[int, ...], ...]
    grids: dict[int, tuple[int, int]]
    hints: LayerHints | None = None


class KeepNorm1(AttnProcessor2_0):
    """attn1 of the reference U-Net: keeps what it is given, which is norm1."""

    def __init__(self, layer: str):
        super().__init__()
        self.layer = layer

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, banks=None):
        banks[self.layer] = hidden_states
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class TextAttention(AttnProcessor2_0):
    """attn2 of the reference U-Net."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, banks=None):
        return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)


class KeepLastNorm1(nn.Module):
    """In place of the last attn1 of the reference U-Net, which nothing follows."""

    def __init__(self, layer: str):
        super().__init__()
        self.layer = layer

    def forward(self, hidden_states, encoder_hidden_states=None, attention_mask=None, banks=None):
        banks[self.layer] = hidden_states
        return hidden_states


class SharedSelfAttention:
    """attn1 of the U-Net: each picture's queries attend to its own tokens and to those of its references."""

    def __init__(self, layer: str):
        self.layer = layer

    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, references=None, image_tokens=None
    ):
        q, k, v = attn.to_q(hidden_states), attn.to_k(hidden_states), attn.to_v(hidden_states)
        out = _attend(q, k, v, attn.heads) if references is None else self._share(attn, q, k, v, references)
        out = attn.to_out[1](attn.to_out[0](out))
        if references is not None and references.hints:
            references.hints.read_layer(self.layer, references.banks[self.layer], out, references.grids[out.shape[1]])
        return out

    def _share(self, attn, q, k, v, references: References) -> torch.Tensor:
        bank = references.banks[self.layer]
        grid = references.grids[bank.shape[1]]
        selected = [select_tokens(bank[r], token_mask(references.masks[r], grid)) for r in range(bank.shape[0])]
        lengths = [len(kept.tokens) for kept in selected]
        tokens = torch.cat([kept.tokens for kept in selected])
        keys, values = attn.to_k(tokens).split(lengths), attn.to_v(tokens).split(lengths)

        def attend(q, k, v, mask=None):
            return _attend(q, k, v, attn.heads, mask)

        out = []
        # b pictures, each n times in a row
        rows = (rearrange(x, "(b n) t c -> b n t c", b=len(references.of)) for x in (q, k, v))
        for own, q_, k_, v_ in zip(references.of, *rows):
            if own:
                joined = join_references([ReferenceGroup(keys[r], values[r], removed=selected[r].removed) for r in own])
                out.append(shared_attention(q_, k_, v_, joined.widened(attn.heads), attn.heads, attend))
                if references.hints:
                    references.hints.look(q_[-1], k_[-1], joined, [lengths[r] for r in own], own, grid, attn.heads)
            else:
                out.append(attend(q_, k_, v_))
        return torch.cat(out)


class DecoupledAttention(nn.Module):
    """attn2 of the U-Net: attention to the text, and apart from it to the image tokens (section 3.4)."""

    def __init__(self, to_k: nn.Linear, to_v: nn.Linear):
        super().__init__()
        # As in the release, image tokens are first read as text is.
        self.to_k_dc, self.to_v_dc = copy.deepcopy(to_k), copy.deepcopy(to_v)

    # diffusers looks for the arguments' names here.
    def __call__(
        self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, references=None, image_tokens=None
    ):
        q = attn.to_q(hidden_states)
        out = _attend(q, attn.to_k(encoder_hidden_states), attn.to_v(encoder_hidden_states), attn.heads)
        if image_tokens is not None:
            out = out + _attend(q, self.to_k_dc(image_tokens), self.to_v_dc(image_tokens), attn.heads)
        return attn.to_out[1](attn.to_out[0](out))


def share_attention(unet: UNet2DConditionModel):
    """Puts shared self-attention and decoupled cross-attention into a U-Net."""
    modules = dict(unet.named_modules())
    processors = {}
    for name in unet.attn_processors:
        layer = name.removesuffix(".processor")
        attn = modules[layer]
        processors[name] = (
            SharedSelfAttention(layer) if layer.endswith("attn1") else DecoupledAttention(attn.to_k, attn.to_v)
        )
    unet.set_attn_processor(processors)


def keep_norm1(unet: UNet2DConditionModel):
    """Makes a U-Net the appearance encoder. What comes after its last norm1 is taken out, as in the release; whole blocks that come
    after it keep their weights, as every loader expects them, and are not run."""
    layers = [name.removesuffix(".processor") for name in unet.attn_processors]
    unet.set_attn_processor({
        f"{layer}.processor": KeepNorm1(layer) if layer.endswith("attn1") else TextAttention() for layer in layers
    })
    last_block = [block for block in unet.up_blocks if hasattr(block, "attentions")][-1]
    after = list(unet.up_blocks)[list(unet.up_blocks).index(last_block) + 1 :]
    for module in (*(last_block.upsamplers or ()), *after):
        module.forward = _unchanged
    last = last_block.attentions[-1]
    block = last.transformer_blocks[-1]
    layer = next(name for name, module in unet.named_modules() if module is block.attn1)
    block.attn1, block.attn2, block.norm2, block.norm3 = KeepLastNorm1(layer), None, None, nn.Identity()
    block.ff = last.proj_out = unet.conv_out = nn.Identity()
    unet.conv_norm_out = None


def _unchanged(hidden_states: torch.Tensor, *_, **__) -> torch.Tensor:
    return hidden_states


def token_grids(unet: UNet2DConditionModel, height: int, width: int) -> dict[int, tuple[int, int]]:
    """The token grids of a latent of the given size, by their number of tokens: halves, rounded up."""
    grids = {}
    for _ in unet.config.block_out_channels:
        grids[height * width] = (height, width)
        height, width = -(-height // 2), -(-width // 2)
    return grids


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k, v))
    return rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b h t d -> b t (h d)")
