"""Which rows a cross-attention gets, where other nodes' patches repeat some: attention couple does so, once for each prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .batch import ROWS, Batch
from .carried import Carried


class TellRows(Carried):
    """attn2 patch: calls the other nodes' patches, and notes for the block's replacement which of the rows that they give are the
    positive conditioning's. In what order they repeat them is not asked: a repeated row equals the row that it repeats, and
    where rows of both kinds are equal, as before the first text was read, the patches are called once more with marks.
    """

    def __init__(self, patches: Sequence[Callable], batch: Batch):
        self.patches, self.batch = patches, batch

    def __call__(self, n, context, value, options):
        given = self._call(n, context, value, options)
        if len(given[0]) != len(n):
            options[ROWS] = self._kinds(given[0], n, context, value, options)
        return given

    def _call(self, n, context, value, options) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        for patch in self.patches:
            n, context, value = patch(n, context, value, options)
        return n, context, value

    @torch.compiler.disable
    def _kinds(self, given, n, context, value, options: dict[str, Any]) -> list[bool] | None:
        """For each given row whether it is the positive conditioning's; None where it cannot be told."""
        flags = self.batch.flags(len(n), options)
        if given.shape[1:] == n.shape[1:]:
            equal = torch.stack([(given == row).flatten(1).all(1) for row in n], 1).tolist()
            kinds = [{flag for flag, same in zip(flags, of_row) if same} for of_row in equal]
            if all(len(kind) == 1 for kind in kinds):
                told = [kind.pop() for kind in kinds]
                return told if set(told) == set(flags) else None
        positive, other = (self._reached([flag == kind for flag in flags], n, context, value, options) for kind in (True, False))
        # It cannot be told where a row is of both kinds, where another call gives other rows, and where no row of a kind is left.
        told = len(positive) == len(other) == len(given) and all(a != b for a, b in zip(positive, other))
        return positive if told and set(positive) == set(flags) else None

    def _reached(self, marked: list[bool], n, context, value, options: dict[str, Any]) -> list[bool]:
        """Which of the rows that the patches give take something from the marked ones."""
        marks = torch.zeros_like(n)
        marks[torch.tensor(marked, device=n.device)] = 1
        with torch.random.fork_rng([n.device] if n.is_cuda else []):
            rows = self._call(marks, context.clone(), value.clone(), dict(options))[0]
        return rows.ne(0).flatten(1).any(1).tolist()
