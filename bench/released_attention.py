"""The release's shared attention as it computes it, spelled out as patches of the host: what the bench compares with.

All tokens of the references, those outside the masks as zeros, are put behind the target's. Queries, keys and values of
all of them are computed, in both halves and in every step, and the rows of the references are thrown away. The
unconditional half is then computed again without references.
"""

from __future__ import annotations

import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from einops import rearrange
from inside import transformer_blocks
from parts2whole.attention.bank import BlockAddress


def apply_as_released(model: ModelPatcher, features: list[dict[BlockAddress, torch.Tensor]]) -> ModelPatcher:
    """features: for every reference and block [T, C], zero outside the mask"""
    place = model.load_device, model.model.get_dtype_inference()
    joined = {address: torch.cat([reference[address] for reference in features]).to(*place) for address in features[0]}

    def concatenate(n, context, value, options):
        references = joined[_address(options)].expand(n.shape[0], -1, -1)
        together = torch.cat([n, references], dim=1)
        return together, together, together

    def attend(q, k, v, options):
        heads, own = options["n_heads"], _own_tokens(options)
        out = optimized_attention(q, k, v, heads, transformer_options=options)
        conditional = options["cond_or_uncond"]
        plain, chunks = [i for i, index in enumerate(conditional) if index != 0], len(conditional)
        out, q, k, v = (rearrange(x, "(chunk row) token c -> chunk row token c", chunk=chunks) for x in (out, q, k, v))
        for i in plain:
            out[i, :, :own] = optimized_attention(
                *(x[i, :, :own] for x in (q, k, v)), heads, transformer_options=options
            )
        return rearrange(out, "chunk row token c -> (chunk row) token c")

    def keep_own(n, options):
        return n[:, :_own_tokens(options)]

    model = model.clone()
    model.set_model_attn1_patch(concatenate)
    for address in transformer_blocks(model.model.diffusion_model):
        model.set_model_attn1_replace(attend, *address)
    model.set_model_attn1_output_patch(keep_own)
    return model


def _address(options: dict) -> BlockAddress:
    return BlockAddress(*options["block"], options["block_index"])


def _own_tokens(options: dict) -> int:
    return options["activations_shape"][2] * options["activations_shape"][3]
