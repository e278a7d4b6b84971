"""How much of the softmax falls on each group of keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

# At most so many logits at once, 512 MB in float32: without a fused kernel PyTorch holds them all.
MOST_LOGITS = 2**27


def attention_shares(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, heads: int, sizes: list[int]
) -> torch.Tensor:
    """The share of the softmax that falls on each group of keys, a mean over the heads.

    q: [B, T, H * c]; k: [B, S, H * c]; mask: [1, 1, S] added to the logits, or None
    sizes: how many keys each group has, S in all
    returns: [B, T, len(sizes)], float32; a token's shares add up to 1, in the precision of q
    """
    q, k = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k))
    # Attention to values that are 1 for the keys of a group, and 0 else, is the group's share: the fastest kernels serve.
    groups = torch.cat([row.expand(size, -1) for row, size in zip(torch.eye(len(sizes), device=k.device), sizes)])
    width = q.shape[-1]
    values = F.pad(groups, (0, -len(sizes) % width)).to(q.dtype).split(width, dim=1)
    values = [v.expand(*k.shape[:2], -1, -1) for v in values]
    if mask is not None:
        mask = mask[:, None]
    rows = max(1, MOST_LOGITS // (k.shape[0] * heads * k.shape[2]))
    shares = [
        torch.cat([F.scaled_dot_product_attention(queries, k, v, mask).float().mean(1) for v in values], dim=-1)
        for queries in q.split(rows, dim=2)
    ]
    return torch.cat(shares, dim=1)[..., :len(sizes)]
