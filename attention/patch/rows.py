"""Rows of a batch taken apart into those of the positive conditioning and the others, and put together again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


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
