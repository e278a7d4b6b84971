"""What runs inside the U-Net: the patches that `model_patch` puts in place. They read tensors and keep no state."""

from __future__ import annotations

from collections.abc import Callable

import comfy.utils
import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention

from ..image_attention import KeysAndValues
from ..shared_attention import ReferenceKeys, shared_attention

# Where `model_patch` writes down, in transformer_options, which indices of cond_or_uncond are the positive conditioning.
CONDITIONAL = "parts2whole_conditional"
# And the regions of the references in the order of their numbers: each [B, 1, h, w] in 0..1 for the whole batch, in latents.
REGIONS = "parts2whole_regions"
# And the Attribution that gathers shares of the attention, or None.
ATTRIBUTION = "parts2whole_attribution"


class ShareReferences:
    """attn1 replacement: the conditional chunks attend to the references too.

    previous: another node's replacement of the same block, or None
    """

    def __init__(self, references: ReferenceKeys, previous: Callable | None):
        self.references = references
        self.previous = previous

    def __call__(self, q, k, v, options):
        conditional = conditional_chunks(options)
        out = [None] * len(conditional)
        for sees_references in (False, True):
            chunks = [i for i, flag in enumerate(conditional) if flag == sees_references]
            if not chunks:
                continue
            q_, k_, v_ = (_select_chunks(x, chunks, len(conditional)) for x in (q, k, v))
            # HyperTile makes a batch of tiles of the queries alone; the host's attention then reads the keys as such a batch.
            k_, v_ = (x.reshape(q_.shape[0], -1, x.shape[-1]) for x in (k_, v_))

            def attend(q, k, v, mask=None, chunks=chunks, sees_references=sees_references):
                # What another node puts in the attention's place does not attend by these shares.
                if sees_references and options.get(ATTRIBUTION) and self.previous is None:
                    lengths, grid = self.references.lengths, tuple(options["activations_shape"][2:])
                    removed = len(self.references.k) - sum(lengths)
                    options[ATTRIBUTION].add(q, k, mask, options["n_heads"], lengths, removed, grid, len(chunks))
                return _attend(q, k, v, options, self.previous, chunks, mask)

            if sees_references:
                regions = _regions_of(options, chunks, q_.shape)
                result = shared_attention(q_, k_, v_, self.references, options["n_heads"], attend, regions)
            else:
                result = attend(q_, k_, v_)
            for chunk, rows in zip(chunks, result.chunk(len(chunks))):
                out[chunk] = rows
        return torch.cat(out)


class AddImageTokens:
    """attn2 replacement: adds the attention to the image tokens in the conditional chunks.

    In the unconditional chunks all tokens are zero as trained, so that their values add exactly nothing.

    tokens: keys and values [1, 6, C], and the factor of what they add, of every image attention applied
    """

    def __init__(self, tokens: list[tuple[KeysAndValues, float]], previous: Callable | None):
        self.tokens = tokens
        self.previous = previous

    def __call__(self, q, k, v, options):
        conditional = conditional_chunks(options)
        out = _attend(q, k, v, options, self.previous, list(range(len(conditional))))
        chunks = [i for i, flag in enumerate(conditional) if flag]
        if not chunks:
            return out
        out = list(out.chunk(len(conditional)))
        q = _select_chunks(q, chunks, len(conditional))
        for (k, v), strength in self.tokens:
            k, v = (x.expand(q.shape[0], -1, -1) for x in (k, v))
            added = _attend(q, k, v, options, None, chunks) * strength
            for chunk, rows in zip(chunks, added.chunk(len(chunks))):
                out[chunk] = out[chunk] + rows
        return torch.cat(out)


class AddPose:
    """input_block_patch: adds the pose features to the first convolution's output, in all chunks.

    features: for every chunk [B, C, h, w]
    """

    def __init__(self, features: list[torch.Tensor]):
        self.features = features

    def __call__(self, h, options):
        if options["block"] != ("input", 0):
            return h
        return torch.cat([
            rows + comfy.utils.repeat_to_batch_size(features, rows.shape[0]).to(rows.dtype)
            for rows, features in zip(h.chunk(len(self.features)), self.features)
        ])


def conditional_chunks(options: dict) -> list[bool]:
    """For each chunk of the batch whether it belongs to the positive conditioning."""
    conditional = options.get(CONDITIONAL)
    return [conditional[index] if conditional else index == 0 for index in options.get("cond_or_uncond", [0])]


def _attend(q, k, v, options: dict, previous: Callable | None, chunks: list[int], mask: torch.Tensor | None = None) -> torch.Tensor:
    """The attention that the user chose, or another node's replacement, which takes no mask.

    chunks: the part of the batch that q, k, v are
    """
    options = {**options, "dim_head": q.shape[-1] // options["n_heads"]}
    for name in ("cond_or_uncond", "uuids"):
        if name in options:
            options[name] = [options[name][chunk] for chunk in chunks]
    if previous is None:
        return optimized_attention(
            q, k, v, options["n_heads"], mask=mask, attn_precision=options["attn_precision"], transformer_options=options
        )
    # A replacement that hands on the values, as Perturbed-Attention Guidance does, has a row for every key: ours come last.
    return previous(q, k, v, options)[:, :q.shape[1]]


def _regions_of(options: dict, chunks: list[int], shape: torch.Size) -> torch.Tensor | None:
    """The regions at the places of these chunks' queries: [B, T, N]"""
    regions = options.get(REGIONS)
    if not regions:
        return None
    grid = tuple(options["activations_shape"][2:])
    count = len(conditional_chunks(options))
    maps = [F.adaptive_avg_pool2d(_select_chunks(region, chunks, count), grid).flatten(1) for region in regions]
    if maps[0].shape != shape[:2]:
        raise ValueError(
            f"Another node on the MODEL gives the self-attention {list(shape[:2])} places where the latent has "
            f"{list(maps[0].shape)}, so a region cannot be told: remove the region of Apply Parts2Whole, or that node (HyperTile "
            "and Token Merging do so)."
        )
    return torch.stack(maps, -1)


def _select_chunks(x: torch.Tensor, chunks: list[int], count: int) -> torch.Tensor:
    if len(chunks) == count:
        return x
    rows = [x.chunk(count)[chunk] for chunk in chunks]
    return rows[0] if len(rows) == 1 else torch.cat(rows)
