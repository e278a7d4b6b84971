"""What runs inside the U-Net: the patches that `step` puts in place for one call. They keep nothing from call to call.

A further attention kernel goes into `_attend`, and what carries a bias to it into `takes_mask`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from einops import rearrange

from ..image_attention import KeysAndValues
from ..shared_attention import ReferenceKeys, shared_attention
from .attribution import Attribution
from .batch import Batch
from .host import Carried
from .rows import Span, put_together, take


class ShareReferences(Carried):
    """attn1 replacement: the positive conditioning's rows attend to the references too.

    regions: of the references in the order of their numbers, each [R, 1, h, w] in 0..1, in latents
    attribution: gathers shares of the attention; None: they are not recorded
    previous: another node's replacement of the same block, or None
    """

    def __init__(
        self, references: ReferenceKeys, heads: int, batch: Batch, regions: tuple[torch.Tensor, ...] = (),
        attribution: Attribution | None = None, previous: Callable | None = None,
    ):
        self.references, self.heads = references, heads
        self.batch, self.regions, self.attribution, self.previous = batch, regions, attribution, previous

    def __call__(self, q, k, v, options):
        spans = self.batch.spans(len(q), options)
        kinds = {}
        for positive in sorted({span.positive for span in spans}):
            q_, k_, v_ = (take(x, spans, positive) for x in (q, k, v))
            # HyperTile tiles only the queries; the host's attention then splits the keys alike.
            k_, v_ = (x.reshape(q_.shape[0], -1, x.shape[-1]) for x in (k_, v_))

            def attend(q, k, v, mask=None, positive=positive):
                return _attend(q, k, v, self.heads, options, self.previous, self.batch, positive, mask)

            if positive:
                regions = self._regions_at(spans, q_.shape, options)
                kinds[True] = shared_attention(q_, k_, v_, self.references, self.heads, self._recorded(attend, options), regions)
            else:
                kinds[False] = attend(q_, k_, v_)
        return put_together(spans, kinds)

    def _recorded(self, attend: Callable, options: dict[str, Any]) -> Callable:
        """The same attention, whose shares the attribution gets."""
        # What another node puts in the attention's place does not attend by these shares.
        if self.attribution is None or self.previous is not None or "activations_shape" not in options:
            return attend

        def recorded(q, k, v, mask=None):
            lengths, grid = self.references.lengths, tuple(options["activations_shape"][2:])
            removed, conditionings = len(self.references.k) - sum(lengths), sum(self.batch.positive_chunks(options))
            self.attribution.add(q, k, mask, self.heads, lengths, removed, grid, conditionings)
            return attend(q, k, v, mask)

        return recorded

    def _regions_at(self, spans: list[Span], shape: torch.Size, options: dict[str, Any]) -> torch.Tensor | None:
        """The regions at the tokens of the positive conditioning's queries: [B, T, N]"""
        if not self.regions:
            return None
        rows, grid = spans[-1].stop, self.batch.grid_of(shape[1], options)
        of_this_kind = sum(span.stop - span.start for span in spans if span.positive)
        if rows != len(self.batch.rows) or grid is None or shape[0] != of_this_kind:
            h, w = options.get("activations_shape", self.regions[0].shape)[2:]
            raise ValueError(
                f"Another node on the MODEL gives the self-attention {shape[1]} tokens in {shape[0]} rows where the layer has "
                f"{h * w} in {of_this_kind}, so it cannot be told which tokens are in the region: remove the region of Apply "
                "Parts2Whole, or that node (HyperTile and Token Merging do so)."
            )
        maps = [F.adaptive_avg_pool2d(take(region, spans, True), grid) for region in self.regions]
        return rearrange(maps, "regions b 1 h w -> b (h w) regions")


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
        spans = self.batch.text_spans(q, k, options)
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


def takes_mask(device: torch.device, dtype: torch.dtype, regions: Sequence[torch.Tensor], options: dict[str, Any]) -> bool:
    """Whether an attention mask is the best to carry what is added to the logits; else more channels of the heads do.

    A GPU's fastest kernels take no mask, and another node's attention need not take one; in half precision a mask would
    round the bias, and with regions it is large. docs/performance.md has what each gave.
    """
    on_cpu = device.type == "cpu" and dtype == torch.float32
    return on_cpu and not regions and "optimized_attention_override" not in options
