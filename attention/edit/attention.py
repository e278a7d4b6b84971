"""What is done to the attention of an edit model where a reference has a strength or a region, or where shares are recorded.

The queries of text and target see the keys of a reference with the weight s; those of the target in its region only. The
queries of the references see all keys as before, so that what a reference looks like does not depend on either.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange

from ..patch.attribution import Attribution
from ..patch.batch import Batch
from ..patch.carried import Carried
from ..patch.host.edit import token_side
from ..shared_attention import widen, widen_keys, widen_queries
from .tokens import KeepTokens, Layout


class WeighReferences(Carried):
    """`optimized_attention_override` of one call of the model.

    tokens: the patch that knows the layout
    strengths: of each reference
    regions: for each reference the number of its region in `maps`, or None
    maps: [R, N, h, w] in 0..1, for every row of the batch, at the size of its latent; None: there are no regions
    frames: of the target's latent
    previous: another node's override, or None
    record: what gets queries, keys, mask, layout and frames too; None: nothing does
    """

    def __init__(
        self, tokens: KeepTokens, strengths: Sequence[float], regions: Sequence[int | None], maps: torch.Tensor | None,
        frames: int = 1, previous: Callable | None = None,
    ):
        self.tokens, self.strengths, self.regions, self.maps = tokens, strengths, regions, maps
        self.frames, self.previous = frames, previous
        self.record: Callable | None = None
        self._terms: dict[tuple, tuple] = {}

    @property
    def widens(self) -> bool:
        return any(strength != 1 for strength in self.strengths) or self.maps is not None

    @property
    def acts(self) -> bool:
        return self.widens or self.record is not None

    def __call__(self, attention: Callable, q, k, v, heads: int, *args, **kwargs):
        attend = attention if self.previous is None else partial(self.previous, attention)
        layout = self.tokens.layout
        # Krea 2's text is read before there is a layout, and other nodes attend to other things.
        if layout is None or k.shape[-2] != layout.keys or q.shape[-2] not in (layout.keys, layout.before_references):
            return attend(q, k, v, heads, *args, **kwargs)
        if not kwargs.get("skip_reshape"):
            q, k, v = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k, v))
            kwargs["skip_reshape"] = True
        head_dim = q.shape[-1]
        if self.widens:
            q, k, v = self._widened(q, k, v, layout)
        if self.record is not None:
            self.record(q, k, args[0] if args else kwargs.get("mask"), layout, self.frames)
        out = attend(q, k, v, heads, *args, **kwargs)
        if q.shape[-1] == head_dim:
            return out
        if kwargs.get("skip_output_reshape"):
            return out[..., :head_dim]
        return rearrange(rearrange(out, "b t (h d) -> b t h d", h=heads)[..., :head_dim], "b t h d -> b t (h d)")

    def _widened(self, q, k, v, layout: Layout):
        """q: [B, H, T, d]; k, v: [B, H, S, d]"""
        head_dim = q.shape[-1]
        bias, one_hot, maps = self._terms_for(layout, len(q), q.device)
        k = widen_keys(k, 1, bias, one_hot)
        extra = k.shape[-1] - head_dim
        q = widen_queries(q, 1, extra, None if maps is None else maps[:, None, :q.shape[2]])
        q[:, :, layout.before_references:, head_dim:] = 0
        return q, k, widen(v, 1, extra)

    def _terms_for(self, layout: Layout, rows: int, device: torch.device):
        """Bias [S], regions of the keys [S, N], and of the queries [B, S, N]; the latter two or None"""
        key = layout, rows, device
        if key not in self._terms:
            self._terms[key] = self._compute(layout, rows, device)
        return self._terms[key]

    def _compute(self, layout: Layout, rows: int, device: torch.device):
        of_key = torch.arange(len(layout.references)).repeat_interleave(torch.tensor(layout.references))
        bias = torch.tensor([math.log(strength) for strength in self.strengths])[of_key]
        bias = F.pad(bias, (layout.before_references, 0)).to(device)
        if self.maps is None:
            return bias, None, None
        if rows != len(self.maps):
            raise ValueError(
                f"Another node on the MODEL gives the attention {rows} rows where the batch has {len(self.maps)}, so it cannot be "
                "told what a region is for: remove the region of Reference Parts, or that node."
            )
        count = self.maps.shape[1]
        one_hot = torch.zeros(layout.keys, count)
        begin = layout.before_references
        for number, length in zip(self.regions, layout.references):
            if number is not None:
                one_hot[begin:begin + length, number] = 1
            begin += length
        height, width = self.maps.shape[2:]
        side = token_side((height, width), layout.target, self.frames)
        grid = -(-height // side), -(-width // side)
        target = rearrange(F.adaptive_avg_pool2d(self.maps, grid), "b n h w -> b (h w) n").repeat(1, self.frames, 1)
        ones = target.new_ones(rows, 1, count)
        queries = [ones.expand(-1, layout.text, -1), target, ones.expand(-1, sum(layout.references), -1)]
        return bias, one_hot.to(device), torch.cat(queries, 1).to(device)


def record_shares(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, layout: Layout, frames: int, attribution: Attribution,
    batch: Batch, options: dict[str, Any],
):
    """Gathers how much attention the target's queries pay to itself, each reference and the text. q, k: [B, H, T, d]"""
    positive = batch.positive_chunks(options)
    if mask is not None and mask.ndim != 3 or len(q) % len(positive) or frames != 1 or not any(positive):
        return
    heads, chunks = q.shape[1], len(positive)
    rows = torch.tensor(positive).repeat_interleave(len(q) // chunks).to(q.device)
    q = q[rows][:, :, layout.text:layout.before_references]
    # The target's keys first and the text's last.
    k = torch.cat([k[rows][:, :, layout.text:], k[rows][:, :, :layout.text]], 2)
    q, k = (rearrange(x, "b h t d -> b t (h d)") for x in (q, k))
    if mask is not None:
        mask = mask.expand(len(rows), -1, -1)[rows]
        mask = torch.cat([mask[..., layout.text:], mask[..., :layout.text]], -1)
    side = token_side(batch.grid, layout.target)
    grid = -(-batch.grid[0] // side), -(-batch.grid[1] // side)
    attribution.add_whole(q, k, mask, heads, layout.references, layout.text, grid, sum(positive))
