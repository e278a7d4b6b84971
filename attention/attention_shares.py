"""How much of the softmax falls on each run of keys."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange

# Logits that are computed at once, at the most: 512 MB in float32, where PyTorch has no kernel that does without holding them.
BLOCK = 2**27


def attention_shares(
    q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, heads: int, sizes: list[int]
) -> torch.Tensor:
    """The share of the softmax that falls on each run of keys, a mean over the heads.

    q: [B, T, H * c]; k: [B, S, H * c]; mask: [1, 1, S] added to the logits, or None
    sizes: how many keys each run has, S in all
    returns: [B, T, len(sizes)], float32; a token's shares add up to 1, in the precision of q
    """
    q, k = (rearrange(x, "b t (h d) -> b h t d", h=heads) for x in (q, k))
    # Attention to values that are 1 for the keys of a run, and 0 else, is the run's share: the fastest kernels serve.
    runs = torch.cat([row.expand(size, -1) for row, size in zip(torch.eye(len(sizes), device=k.device), sizes)])
    width = q.shape[-1]
    values = F.pad(runs, (0, -len(sizes) % width)).to(q.dtype).split(width, dim=1)
    values = [v.expand(*k.shape[:2], -1, -1) for v in values]
    if mask is not None:
        mask = mask[:, None]
    rows = max(1, BLOCK // (k.shape[0] * heads * k.shape[2]))
    shares = [
        torch.cat([F.scaled_dot_product_attention(block, k, v, mask).float().mean(1) for v in values], dim=-1)
        for block in q.split(rows, dim=2)
    ]
    return torch.cat(shares, dim=1)[..., :len(sizes)]
