"""Rows of a batch taken apart into those of the positive conditioning and the others, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from einops import rearrange, reduce


class Span(NamedTuple):
    """Rows from start to stop, without stop, all of the positive conditioning or none."""

    positive: bool
    start: int
    stop: int


def spans_of(flags: list[bool]) -> list[Span]:
    """flags: for each row, whether it is the positive conditioning's"""
    spans = []
    for i, flag in enumerate(flags):
        if spans and spans[-1].positive == flag:
            spans[-1] = spans[-1]._replace(stop=i + 1)
        else:
            spans.append(Span(flag, i, i + 1))
    return spans


def take(x: torch.Tensor, spans: Sequence[Span], positive: bool) -> torch.Tensor:
    """The rows of the spans of one kind. x has as many rows as the spans tell of, or several for each."""
    times = len(x) // spans[-1].stop
    pieces = [x[span.start * times:span.stop * times] for span in spans if span.positive == positive]
    return pieces[0] if len(pieces) == 1 else torch.cat(pieces)


def put_together(spans: Sequence[Span], kinds: dict[bool, torch.Tensor]) -> torch.Tensor:
    """The inverse of `take`: all rows in their order, of those that each kind of span has."""
    times = sum(len(rows) for rows in kinds.values()) // spans[-1].stop
    pieces = {
        kind: iter(rows.split([times * (span.stop - span.start) for span in spans if span.positive == kind]))
        for kind, rows in kinds.items()
    }
    return torch.cat([next(pieces[span.positive]) for span in spans])


def take_attention(
    spans: Sequence[Span], positive: bool, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows of one kind of a self-attention layer. HyperTile tiles only the queries: keys and values are then split alike, as
    the host's attention does.

    q: [n t, T, C]; k, v: [n, S, C]
    returns: of one kind's m of the n rows, q [m t, T, C]; k, v [m t, S / t, C]
    """
    q, k, v = (take(x, spans, positive) for x in (q, k, v))
    k, v = (rearrange(x, "m (t s) c -> (m t) s c", t=len(q) // len(x)) for x in (k, v))
    return q, k, v


def sum_by_latent(x: torch.Tensor, chunks: int) -> torch.Tensor:
    """What the rows of so many chunks add up to for each latent: [n, ...] -> [latents, ...]"""
    return reduce(x, "(chunks latents) ... -> latents ...", "sum", chunks=chunks)


def chunk_by_chunk(x: torch.Tensor, text: torch.Tensor | None, turns: int, chunks: int, latents: int) -> bool | None:
    """Whether tiles side by side in a batch lie chunk by chunk, [u u c c], and not tile by tile, [u c u c]. A tile is the same in
    all chunks, and a chunk's text is the same in all tiles.

    x: [R, C, h, w]; text: [R, S, D] or None
    returns: None where it cannot be told
    """
    told = [_alike(x, (chunks, turns * latents), 0), _alike(x, (turns, chunks, latents), 1)]
    if told[0] == told[1] and text is not None and len(text) == len(x):
        told = [_alike(text, (chunks, turns, latents), 1), _alike(text, (turns, chunks * latents), 0)]
    return told[0] if told[0] != told[1] else None


def _alike(x: torch.Tensor, shape: tuple[int, ...], dim: int) -> bool:
    """Whether all rows along one of the dimensions that rows are taken apart into are equal."""
    x = x.unflatten(0, shape)
    return bool((x == x.narrow(dim, 0, 1)).all())
