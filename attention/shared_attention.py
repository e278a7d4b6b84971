"""Shared self-attention with masked references (Huang et al., arXiv 2404.15267, section 3.3 "Shared Self-Attention").

The queries of the target attend to the target's own keys and values together with those of every reference:

    out = softmax([q k^T, q k_1^T, q k_2^T, ...] / sqrt(d)) [v, v_1, v_2, ...]

As trained, a masked-out reference token is not removed: its feature is multiplied by zero, and since to_k and to_v have
no bias it stays in the softmax as a key with logit 0 and value 0. n such keys are the same as one key with logit log n
and value 0, so the tokens can be dropped if one *null key* stands for them: exact, and their number costs nothing.

A term added to the logits of one key can be an attention mask, which costs nothing on a CPU, or be carried by more
channels of the heads, a constant in the query and the term in the key: then every attention kernel serves, those without
masks too. docs/performance.md has what each gave.

Torch only: the ComfyUI patch, the training code and the tests all call this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

# Attention kernels want head sizes that are multiples of 8, so one channel more means eight. Two are used: in half
# precision the second carries what the first rounds off.
BIAS_CHANNELS = 8
# The constant in the query: a power of two, so that it is exact, and of the size of the queries themselves.
QUERY_BIAS = 8.0

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]


class ReferenceKeys(NamedTuple):
    """Keys and values of all references at one self-attention layer.

    k, v: [R, H * d], or [R, H * (d + BIAS_CHANNELS)] where the heads carry the bias
    bias: [R], float32, added to the logits of each key; None where all are 0, or the heads carry it
    """

    k: torch.Tensor
    v: torch.Tensor
    bias: torch.Tensor | None

    def widened(self, heads: int) -> ReferenceKeys:
        """The same with the bias in the heads, for attention that takes no mask."""
        if self.bias is None:
            return self
        wide = self.k.shape[-1] // heads + BIAS_CHANNELS
        bias = self.bias * math.sqrt(wide) / QUERY_BIAS  # attention divides by sqrt(wide)
        rounded = bias.to(self.k.dtype)
        rest = (bias - rounded).to(self.k.dtype)
        return ReferenceKeys(_widen(self.k, heads, rounded[:, None], rest[:, None]), _widen(self.v, heads, 0.0, 0.0), None)


def join_references(groups: Sequence[tuple[torch.Tensor, torch.Tensor, float, float]]) -> ReferenceKeys:
    """Puts the keys of several groups of references side by side and adds the null key of their removed tokens.

    groups: for each group its keys and values [R_i, H * d], its strength s > 0, which multiplies the weight of its keys
        before the softmax is normalised (1 as trained), and the number n_i >= 0 of removed tokens that stay in the
        softmax (0: they are dropped, which is another model than the trained one).
    returns: the keys of all groups, with one null key of logit log(sum of s_i n_i) where that sum is positive.
    """
    k = torch.cat([group[0] for group in groups])
    v = torch.cat([group[1] for group in groups])
    null_weight = sum(strength * removed for _, _, strength, removed in groups)
    if null_weight == 0 and all(strength == 1 for _, _, strength, _ in groups):
        return ReferenceKeys(k, v, None)

    bias = torch.cat([torch.full((keys.shape[0],), math.log(strength), device=k.device) for keys, _, strength, _ in groups])
    if null_weight > 0:
        k = F.pad(k, (0, 0, 0, 1))
        v = F.pad(v, (0, 0, 0, 1))
        bias = torch.cat([bias, bias.new_tensor([math.log(null_weight)])])
    return ReferenceKeys(k, v, bias)


def shared_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, references: ReferenceKeys, heads: int, attend: Attend
) -> torch.Tensor:
    """Lets the queries of the target attend to its own keys and to those of the references.

    q: [B, T, H * d]; k, v: [B, S, H * d], the target's own
    attend: softmax attention with the default scale 1/sqrt(head size) for `heads` heads: [B, T, H * c], [B, S', H * c],
        [B, S', H * c], mask -> [B, T, H * c]. It must take the head size from the tensors, which are wider than d where
        the heads of the references are. mask: [1, 1, S'] added to the logits, where the references have a bias, else None
    returns: [B, T, H * d]
    """
    batch = q.shape[0]
    head_dim, wide = q.shape[-1] // heads, references.k.shape[-1] // heads
    if wide > head_dim:
        q = _widen(q * math.sqrt(wide / head_dim), heads, QUERY_BIAS, QUERY_BIAS)
        k, v = (_widen(x, heads, 0.0, 0.0) for x in (k, v))
    mask = None if references.bias is None else F.pad(references.bias, (k.shape[1], 0)).to(q.dtype)[None, None]
    k = torch.cat([k, references.k.expand(batch, -1, -1)], dim=1)
    v = torch.cat([v, references.v.expand(batch, -1, -1)], dim=1)
    out = attend(q, k, v, mask)
    return out.unflatten(-1, (heads, wide))[..., :head_dim].flatten(-2) if wide > head_dim else out


def _widen(x: torch.Tensor, heads: int, first: float | torch.Tensor, second: float | torch.Tensor) -> torch.Tensor:
    """[..., H * d] -> [..., H * (d + BIAS_CHANNELS)]: the first two new channels of each head as given, the others 0."""
    head_dim = x.shape[-1] // heads
    x = F.pad(x.unflatten(-1, (heads, head_dim)), (0, BIAS_CHANNELS))
    x[..., head_dim] = first
    x[..., head_dim + 1] = second
    return x.flatten(-2)
