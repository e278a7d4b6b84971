"""What runs inside the U-Net: the patches that `step` puts in place for one call. They keep nothing from call to call.

A further attention kernel goes into `_attend`, and what carries a bias to it into `takes_mask`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from comfy.ldm.modules.attention import optimized_attention
from einops import rearrange

from ..image_attention import KeysAndValues
from ..shared_attention import ReferenceKeys, shared_attention
from .attribution import Attribution
from .batch import Batch
from .carried import Carried
from .region_map import RegionMap
from .rows import put_together, take, take_attention


class ShareReferences(Carried):
    """attn1 replacement: the positive conditioning's rows attend to the references too.

    regions: of the references in the order of their numbers, in 0..1, in latents
    attribution: gathers shares of the attention; None: they are not recorded
    previous: another node's replacement of the same block, or None
    """

    def __init__(
        self, references: ReferenceKeys, heads: int, batch: Batch, regions: tuple[RegionMap, ...] = (),
        attribution: Attribution | None = None, previous: Callable | None = None,
    ):
        self.references, self.heads = references, heads
        self.batch, self.regions, self.attribution, self.previous = batch, regions, attribution, previous

    def __call__(self, q, k, v, options):
        spans = self.batch.spans(len(q), options)
        kinds = {}
        for positive in sorted({span.positive for span in spans}):
            q_, k_, v_ = take_attention(spans, positive, q, k, v)

            def attend(q, k, v, mask=None, positive=positive):
                return _attend(q, k, v, self.heads, options, self.previous, self.batch, positive, mask)

            if positive:
                maps = self.batch.maps_at(self.regions, spans, q_, options) if self.regions else None
                regions = maps and rearrange(maps, "regions b 1 h w -> b (h w) regions")
                kinds[True] = shared_attention(q_, k_, v_, self.references, self.heads, self._recorded(attend, options), regions)
            else:
                kinds[False] = attend(q_, k_, v_)
        return put_together(spans, kinds)

    def _recorded(self, attend: Callable, options: dict[str, Any]) -> Callable:
        """The same attention, whose shares the attribution gets."""
        # What another node puts in the attention's place does not attend by these shares.
        if self.attribution is None or self.previous is not None:
            return attend

        def recorded(q, k, v, mask=None):
            lengths = self.references.lengths
            removed = len(self.references.k) - sum(lengths)
            self.attribution.add(q, k, mask, self.heads, lengths, removed, self.batch, options)
            return attend(q, k, v, mask)

        return recorded


class AddImageTokens(Carried):
    """attn2 replacement: adds the attention to the image tokens in the positive conditioning's rows.

    In the other rows all tokens are zero as trained, so that their values add exactly nothing.

    tokens: keys and values [1, 6, C], and the factor of what they add, of every image attention applied
    previous: another node's replacement of the same block, or None
    """

    def __init__(
        self, tokens: list[tuple[KeysAndValues, float]], heads: int, batch: Batch, previous: Callable | None = None
    ):
        self.tokens, self.heads, self.batch, self.previous = tokens, heads, batch, previous

    def __call__(self, q, k, v, options):
        out = _attend(q, k, v, self.heads, options, self.previous)
        spans = self.batch.text_spans(len(q), options)
        if not any(span.positive for span in spans):
            return out
        kinds = {positive: take(out, spans, positive) for positive in {span.positive for span in spans}}
        q = take(q, spans, True)
        for (k, v), strength in self.tokens:
            k, v = (x.expand(q.shape[0], -1, -1) for x in (k, v))
            kinds[True] = kinds[True] + _attend(q, k, v, self.heads, options, None, self.batch, True) * strength
        return put_together(spans, kinds)


def _attend(
    q, k, v, heads: int, options: dict[str, Any], previous: Callable | None, batch: Batch | None = None, positive: bool = True,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """The attention that the user chose, or another node's replacement, which takes no mask.

    batch, positive: where q, k, v are the rows of one kind only
    """
    options = {**options, "n_heads": heads, "dim_head": q.shape[-1] // heads}
    if batch is not None:
        options = batch.options_of(positive, options)
    if previous is None:
        return optimized_attention(
            q, k, v, heads, mask=mask, attn_precision=options.get("attn_precision"), transformer_options=options
        )
    # A replacement that hands on the values, as Perturbed-Attention Guidance does, has a row for every key: ours come last.
    return previous(q, k, v, options)[:, :q.shape[1]]


def takes_mask(device: torch.device, dtype: torch.dtype, regions: Sequence, options: dict[str, Any]) -> bool:
    """Whether an attention mask is the best to carry what is added to the logits; else more channels of the heads do.

    A GPU's fastest kernels take no mask, and another node's attention need not take one; in half precision a mask would
    round the bias, and with regions it is large. docs/performance.md has what each gave.
    """
    on_cpu = device.type == "cpu" and dtype == torch.float32
    return on_cpu and not regions and "optimized_attention_override" not in options
