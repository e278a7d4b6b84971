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


def coupled(q: torch.Tensor, k: torch.Tensor, chunks: list[int], rows: int) -> list[int] | None:
    """How often each chunk stands in a cross-attention: attention couple repeats the conditional ones, each as a whole, once for
    each of its own prompts; or all chunks.

    q: [n, T, C]; k: [n, S, C]
    chunks: their numbers in cond_or_uncond, of which other packs call 0 conditional: positive is ours
    rows: how many each chunk has in the layer
    returns: None where it cannot be told
    """
    conditional = chunks.count(0)
    times, rest = divmod(len(q) - rows * (len(chunks) - conditional), rows * max(conditional, 1))
    some = conditional > 0 and rest == 0 and times >= 1
    every, rest = divmod(len(q), rows * len(chunks))
    if rest == 0 and (not some or conditional < len(chunks) and _repeated(q, k, chunks, every, rows)):
        return [every] * len(chunks)
    return [times if number == 0 else 1 for number in chunks] if some else None


def _repeated(q: torch.Tensor, k: torch.Tensor, chunks: list[int], times: int, rows: int) -> bool:
    """Whether every chunk stands so many times, each time with so many rows."""
    every = q.unflatten(0, (len(chunks), times, rows))
    if not torch.equal(every[:, 0], every[:, 1]):
        return False
    if not torch.equal(every[0, 0], every[-1, 0]):
        return True
    # Before the first text was read, the queries of all conditionings are the same: the texts are not.
    texts = k.unflatten(0, (len(chunks), times, rows))
    return all(torch.equal(text[0], text[1]) for text, number in zip(texts, chunks) if number != 0)
