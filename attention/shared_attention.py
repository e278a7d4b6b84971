"""Shared self-attention with masked references (Huang et al., arXiv 2404.15267, section 3.3 "Shared Self-Attention").

The queries of the target attend to the target's own keys and values together with those of every reference:

    out = softmax([q k^T, q k_1^T, q k_2^T, ...] / sqrt(d)) [v, v_1, v_2, ...]

As trained, a masked-out reference token is not removed: its feature is multiplied by zero, and since to_k and to_v have
no bias it stays in the softmax as a key with logit 0 and value 0. n such keys are the same as one key with logit log n
and value 0, so the tokens can be dropped if one *null key* stands for them: exact, and their number costs nothing.

A term added to the logits of one key can be an attention mask, which costs nothing in SDPA on a CPU, or be carried by more
channels of the heads, a constant in the query and the term in the key: then every attention kernel serves, those without
masks too. docs/performance.md has what each gave. A *region*, where in the target a reference may act, is such a term too:
the logarithm of the region in the query, and a constant in the keys of that reference. Several channels share it, so that its
exp outside of the region is exactly 0, and no channel holds more than kernels that quantise queries bear.

Torch and einops only: the ComfyUI patch, the training code and the tests all call this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange

# Attention kernels want head sizes that are multiples of 8, so one channel more means eight. Two carry the bias: in half
# precision the second has what the first rounds off. The others are for the regions: two or more for each.
CHANNELS, BIAS_CHANNELS, REGION_CHANNELS = 8, 2, 2
# Constants in the query and in the key: powers of two, so that they are exact, and of the size of queries and keys.
QUERY_BIAS, KEY_REGION = 8.0, 16.0
# In each of a region's channels at most. The exp of two of them is 0 in float32; one is not lower, for the sake of kernels that
# quantise queries.
OUTSIDE = -60.0

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class ReferenceGroup(NamedTuple):
    """Keys and values of references that share a strength and a region.

    k, v: [R, H * d]
    strength: s > 0, which multiplies the weight of the keys before the softmax is normalised; 1 as trained
    removed: the number n >= 0 of removed tokens that stay in the softmax; 0: they are dropped, which is another model than
        the trained one
    region: the number of the region of the target in which they act; None: everywhere
    """

    k: torch.Tensor
    v: torch.Tensor
    strength: float = 1.0
    removed: float = 0
    region: int | None = None


class ReferenceKeys(NamedTuple):
    """Keys and values of all references at one self-attention layer.

    k, v: [R, H * d], or [R, H * wider] where the heads carry bias and regions
    bias: [R], float32, added to the logits of each key; None where all are 0, or the heads carry it
    regions: [R, N], 1 where a key acts only in a region; None where all act everywhere, or the heads carry it
    lengths: how many of the keys are each group's, in turn; those after them are null keys
    """

    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor | None
    regions: torch.Tensor | None = None
    lengths: tuple[int, ...] = ()

    def widened(self, heads: int) -> ReferenceKeys:
        """The same with bias and regions in the heads, for attention that takes no mask."""
        if self.bias is None:
            return self
        k = widen_keys(self.k, heads, self.bias, self.regions)
        return ReferenceKeys(k, widen(self.v, heads, (k.shape[-1] - self.k.shape[-1]) // heads), None, lengths=self.lengths)


def widened_size(size: int, regions: int) -> int:
    """Channels of a head that carries bias and so many regions."""
    return size + -(-(BIAS_CHANNELS + REGION_CHANNELS * regions) // CHANNELS) * CHANNELS


def _turns(extra: int, regions: int) -> int:
    """How many of the extra channels of a head each region has."""
    return (extra - BIAS_CHANNELS) // max(1, regions)


def join_references(groups: Sequence[ReferenceGroup]) -> ReferenceKeys:
    """Puts the keys of several groups of references side by side and adds the null keys of their removed tokens: one for all
    that act everywhere, of logit log(sum of s n), and one for each region."""
    removed = {}
    for group in groups:
        removed[group.region] = removed.get(group.region, 0.0) + group.strength * group.removed
    zero = groups[0].k.new_zeros(1, groups[0].k.shape[-1])
    null_keys = [ReferenceGroup(zero, zero, weight, region=region) for region, weight in removed.items() if weight > 0]
    lengths = tuple(len(group.k) for group in groups)
    groups = [*groups, *null_keys]
    k, v = torch.cat([group.k for group in groups]), torch.cat([group.v for group in groups])
    count = 1 + max((group.region for group in groups if group.region is not None), default=-1)
    if not count and not null_keys and all(group.strength == 1 for group in groups):
        return ReferenceKeys(k, v, None, lengths=lengths)

    bias = torch.cat([torch.full((len(group.k),), math.log(group.strength), device=k.device) for group in groups])
    regions = None
    if count:
        regions = bias.new_zeros(len(k), count)
        begin = 0
        for group in groups:
            if group.region is not None:
                regions[begin:begin + len(group.k), group.region] = 1
            begin += len(group.k)
    return ReferenceKeys(k, v, bias, regions, lengths)


def shared_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, references: ReferenceKeys, heads: int, attend: Attend,
    regions: torch.Tensor | None = None,
) -> torch.Tensor:
    """Lets the queries of the target attend to its own keys and to those of the references.

    q: [B, T, H * d]; k, v: [B, S, H * d], the target's own
    attend: softmax attention with the default scale 1/sqrt(head size) for `heads` heads: [B, T, H * c], [B, S', H * c],
        [B, S', H * c], mask -> [B, T, H * c]. It must take the head size from the tensors, which are wider than d where
        the heads of the references are. mask: [1, 1, S'] added to the logits, where the references have a bias, else None
    regions: [B, T, N] in 0..1, how far each token of the target is in each region, where references have regions; those
        must be widened
    returns: [B, T, H * d]
    raises: ValueError for references with regions that are not widened
    """
    if references.regions is not None:
        raise ValueError("The references have regions that their heads do not carry: call widened() before.")
    batch = q.shape[0]
    head_dim, wide = q.shape[-1] // heads, references.k.shape[-1] // heads
    if wide > head_dim:
        q = widen_queries(q, heads, wide - head_dim, regions)
        k, v = (widen(x, heads, wide - head_dim) for x in (k, v))
    mask = None if references.bias is None else F.pad(references.bias, (k.shape[1], 0)).to(q.dtype)[None, None]
    k = torch.cat([k, references.k.expand(batch, -1, -1)], dim=1)
    v = torch.cat([v, references.v.expand(batch, -1, -1)], dim=1)
    out = attend(q, k, v, mask)
    if wide == head_dim:
        return out
    return rearrange(rearrange(out, "b t (h d) -> b t h d", h=heads)[..., :head_dim], "b t h d -> b t (h d)")


def widen_keys(k: torch.Tensor, heads: int, bias: torch.Tensor, regions: torch.Tensor | None = None) -> torch.Tensor:
    """Keys whose heads carry what is added to their logits, for queries of `widen_queries`.

    k: [..., S, H * d]
    bias: [S], float32, added to the logits of each key
    regions: [S, N], 1 where a key acts only in a region
    returns: [..., S, H * (d + extra)]
    """
    regions = regions if regions is not None else k.new_zeros(len(bias), 0)
    size = k.shape[-1] // heads
    wide = widened_size(size, regions.shape[1])
    bias = bias * math.sqrt(wide) / QUERY_BIAS  # attention divides by the root
    rounded = bias.to(k.dtype)
    terms = torch.stack([rounded, (bias - rounded).to(k.dtype)], -1)
    turns = _turns(wide - size, regions.shape[1])
    return widen(k, heads, wide - size, torch.cat([terms, KEY_REGION * regions.to(k.dtype).repeat(1, turns)], -1))


def widen_queries(q: torch.Tensor, heads: int, extra: int, regions: torch.Tensor | None = None) -> torch.Tensor:
    """Queries for keys of `widen_keys`, which are so many channels wider for each head.

    q: [..., T, H * d]
    regions: [..., T, N] in 0..1, how far each query is in each region; 0 gives the keys of the region a weight of 0
    returns: [..., T, H * (d + extra)], which attention with the default scale of the wider heads treats as q with its own
    """
    head_dim = q.shape[-1] // heads
    wide = head_dim + extra
    terms = q.new_full((*q.shape[:-1], BIAS_CHANNELS), QUERY_BIAS)
    if regions is not None:
        turns = _turns(extra, regions.shape[-1])
        logits = (regions.float().log() / turns).clamp_min(OUTSIDE) * (math.sqrt(wide) / KEY_REGION)
        terms = torch.cat([terms, *turns * [logits.to(q.dtype).expand(*q.shape[:-1], -1)]], -1)
    return widen(q * math.sqrt(wide / head_dim), heads, extra, terms)


def widen(x: torch.Tensor, heads: int, extra: int, terms: torch.Tensor | None = None) -> torch.Tensor:
    """[..., H * d] -> [..., H * (d + extra)]: the first new channels of each head are terms [..., n], the others 0."""
    head_dim = x.shape[-1] // heads
    x = F.pad(rearrange(x, "... (h d) -> ... h d", h=heads), (0, extra))
    if terms is not None:
        x[..., head_dim:head_dim + terms.shape[-1]] = rearrange(terms, "... n -> ... 1 n")
    return rearrange(x, "... h d -> ... (h d)")
