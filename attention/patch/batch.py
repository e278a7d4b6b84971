"""How a batch is laid out: which rows are the positive conditioning's, which latent a row is, where in the latent it lies.

The host puts the latents once into a batch for each conditioning: a *chunk*. It tells `cond_or_uncond` and `uuids`, an entry
for each chunk, and no more; and other nodes change the rows afterwards, without changing those. So rows are always counted
where they are used:

    what is laid out            rows                         who does so
    chunks of latents           [u u c c]                    the host
    a window of the latents     [u c], [u c]                 context windows, AnimateDiff
    tiles side by side          [u c u c]                    tiled diffusion
    repeated conditionals       [u c c]                      attention couple, in cross-attention
    queries in tiles            [u u u u c c c c]            HyperTile, in self-attention
    rows of one kind            [u]                          reference-only controls
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from .host import Carried, Window, chunks_of, window_of
from .rows import Span, spans_of


class Sampled(NamedTuple):
    """What the host is asked for at once, before it makes batches of it.

    latents: how many there are; grid: (h, w) of them
    positive: for each number in cond_or_uncond, whether that is the positive conditioning
    areas: (height, width, y, x) in latents by uuid, for area conditioning
    """

    latents: int
    grid: tuple[int, int]
    positive: tuple[bool, ...]
    areas: dict


class Row(NamedTuple):
    """chunk: the number of its chunk in the batch; latent: the number of its latent in the sampling"""

    chunk: int
    latent: int


class Batch(Carried):
    """The layout of one call of the U-Net.

    sampled: None where the U-Net is called without the host's sampling
    options: the call's transformer_options
    x: [R, C, h, w], or [R, C, frames, h, w]; text: [R, S, D], a row for each of x, or None
    """

    def __init__(self, sampled: Sampled | None, options: dict[str, Any], x: torch.Tensor, text: torch.Tensor | None = None):
        self._numbers = chunks = chunks_of(options, [0])
        self.grid = tuple(x.shape[-2:])
        self.sampled = sampled or Sampled(max(1, len(x) // len(chunks)), self.grid, (), {})
        self.window: Window | None = window_of(options, x.ndim)
        over_latents = self.window is not None and self.window.dim == 0
        self._latents = self.window.indices if over_latents else tuple(range(self.sampled.latents))
        uuids = options.get("uuids", ())
        self._uuids = uuids if len(uuids) == len(chunks) else [None] * len(chunks)
        self._chunks = len(chunks)
        self._chunk_by_chunk = False
        if text is not None and len(text) == len(x) > self._chunks * len(self._latents) and self._chunks > 1:
            # Tiles: where the first two have one text and the last another, the tiles of a chunk follow each other.
            one, last = len(self._latents), len(x) - 1
            self._chunk_by_chunk = torch.equal(text[0], text[one]) and not torch.equal(text[0], text[last])
        self.rows = self._lay_out(len(x), self._chunks)

    @property
    def whole(self) -> bool:
        """Whether every row is a whole latent, and each latent is there once for each conditioning."""
        return self.window is None and self.grid == self.sampled.grid and len(self.rows) == self._chunks * self.sampled.latents

    @property
    def tiled(self) -> bool:
        """Whether rows are pieces of latents of which nobody tells where they lie."""
        told = any(uuid in self.sampled.areas for uuid in self._uuids) or self.window is not None and self.window.dim >= 2
        return not told and (self.grid != self.sampled.grid or len(self.rows) > self._chunks * len(self._latents))

    @property
    def latents_known(self) -> bool:
        """Whether it is known which latent a row is."""
        return len(self.rows) % (self._chunks * len(self._latents)) == 0

    def positive_chunks(self, options: dict[str, Any]) -> list[bool]:
        """For each chunk that the options name, whether it is the positive conditioning's."""
        positive = self.sampled.positive
        return [positive[number] if number < len(positive) else number == 0 for number in chunks_of(options, self._numbers)]

    def spans(self, count: int, options: dict[str, Any]) -> list[Span]:
        """The spans of a self-attention layer's rows, of which the queries have `count`, or each several where they are tiles.

        raises: ValueError where it cannot be told what the rows are
        """
        rows = options.get("activations_shape", [count])[0]
        if count % rows == 0:
            return spans_of(self._flags(rows, options))
        subset = options.get("ref_uncond_idxs")
        if subset is not None and len(subset) == count:
            flags = self._flags(rows, options)
            return spans_of([flags[row] for row in subset])
        chunks = len(chunks_of(options, self._numbers))
        if chunks < self._chunks and count * self._chunks == rows * chunks:
            return spans_of(self._flags(count, options))
        raise ValueError(
            f"Another node gives the self-attention {count} rows where the layer has {rows}, so it cannot be told which of them "
            "parts belong to: remove that node, or Apply Parts2Whole."
        )

    def text_spans(self, q: torch.Tensor, k: torch.Tensor, options: dict[str, Any]) -> list[Span]:
        """The spans of the rows of a cross-attention layer, of its queries [n, T, C] and keys [n, S, C].

        raises: ValueError where it cannot be told what the rows are
        """
        count = len(q)
        rows = options.get("activations_shape", [len(self.rows)])[0]
        if count == rows:
            return spans_of(self._flags(rows, options))
        # Attention couple repeats the conditional chunks, each as a whole, once for each of its own prompts; or all chunks.
        chunks = chunks_of(options, self._numbers)
        if rows % len(chunks):
            raise self._unknown(rows, len(chunks))
        # Conditional is what other packs call number 0; positive is ours.
        one, conditional = rows // len(chunks), chunks.count(0)
        times, rest = divmod(count - one * (len(chunks) - conditional), one * max(conditional, 1))
        some = conditional > 0 and rest == 0 and times >= 1
        every = count % rows == 0
        if every and (not some or conditional < len(chunks) and _repeated(q, k, chunks, count // rows, one)):
            repeats = [count // rows] * len(chunks)
        elif some:
            repeats = [times if number == 0 else 1 for number in chunks]
        else:
            raise ValueError(
                f"Another node gives the cross-attention {count} rows where the layer has {rows}, so it cannot be told which of "
                "them image tokens belong to: remove that node, or Apply Part Image Attention."
            )
        return spans_of([
            flag for flag, repeat in zip(self.positive_chunks(options), repeats) for _ in range(repeat * one)
        ])

    def spread(self, whole: Callable[[int, tuple[int, int]], torch.Tensor]) -> torch.Tensor:
        """For every row the map of its latent, cut to where the row lies.

        whole: of the latent of this number, for a whole latent of this size: [1, C, H, W]
        returns: [R, C, h, w]
        """
        maps = {}
        for row in self.rows:
            if row not in maps:
                maps[row] = self._cut(row.chunk, whole(row.latent, self.whole_size(row.chunk)))
        return torch.cat([maps[row] for row in self.rows])

    def like(self, maps: torch.Tensor, count: int, options: dict[str, Any]) -> torch.Tensor:
        """The maps of this batch for a layer with other rows: [R, C, h, w] -> [count, C, h, w]

        options: the layer's, which name the chunks that another node gives it
        raises: ValueError where it cannot be told which of the batch's rows these are
        """
        numbers = chunks_of(options, self._numbers)
        if count == len(self.rows) and len(numbers) == self._chunks:
            return maps
        of = {}
        for i, row in enumerate(self.rows):
            of.setdefault((self._numbers[row.chunk], row.latent), i)
        rows = [of.get((numbers[row.chunk], row.latent)) for row in self._lay_out(count, len(numbers))]
        if None in rows:
            raise self._unknown(count, len(numbers))
        return maps[rows]

    def options_of(self, positive: bool, options: dict[str, Any]) -> dict[str, Any]:
        """The options for a layer that is given the rows of one kind only."""
        of_this_kind = [chunk == positive for chunk in self.positive_chunks(options)]
        return options | {
            name: [entry for entry, flag in zip(options[name], of_this_kind) if flag]
            for name in ("cond_or_uncond", "uuids") if name in options
        }

    def grid_of(self, tokens: int, options: dict[str, Any]) -> tuple[int, int] | None:
        """(h, w) of a layer of so many tokens; None where these are not the layer's. Where the options do not tell, it is the
        latent halved as often as it takes."""
        if "activations_shape" in options:
            h, w = options["activations_shape"][2:]
        else:
            h, w = self.grid
            while h * w > tokens:
                h, w = -(-h // 2), -(-w // 2)
        return (h, w) if h * w == tokens else None

    def _lay_out(self, count: int, chunks: int) -> list[Row]:
        if count % chunks:
            raise self._unknown(count, chunks)
        latents, turns = self._latents, count // (chunks * len(self._latents))
        if count % (chunks * len(latents)):
            latents, turns = range(count // chunks), 1  # not known: the first ones
        if self._chunk_by_chunk:
            return [Row(chunk, latent) for chunk in range(chunks) for _ in range(turns) for latent in latents]
        return [Row(chunk, latent) for _ in range(turns) for chunk in range(chunks) for latent in latents]

    def _flags(self, rows: int, options: dict[str, Any]) -> list[bool]:
        chunks = self.positive_chunks(options)
        return [chunks[row.chunk] for row in self._lay_out(rows, len(chunks))]

    @staticmethod
    def _unknown(rows: int, chunks: int) -> ValueError:
        return ValueError(
            f"Another node gives the U-Net {rows} rows for {chunks} conditionings, so it cannot be told which of them are the "
            "positive one's: remove that node, or the Apply nodes of Parts2Whole."
        )

    def whole_size(self, chunk: int = 0) -> tuple[int, int]:
        """(h, w) of the latent of which a chunk is a part"""
        size = list(self.sampled.grid if self._uuids[chunk] in self.sampled.areas else self.grid)
        if self.window is not None and self.window.dim >= 2:
            size[self.window.dim - 2] = self.window.total
        return tuple(size)

    def _cut(self, chunk: int, whole: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, h, w]"""
        if self.window is not None and self.window.dim >= 2:
            whole = whole.index_select(self.window.dim, torch.tensor(self.window.indices, device=whole.device))
        area = self.sampled.areas.get(self._uuids[chunk])
        if area:
            whole = whole[:, :, area[2]:area[2] + self.grid[0], area[3]:area[3] + self.grid[1]]
        return whole


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
