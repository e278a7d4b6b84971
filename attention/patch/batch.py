"""How a batch is laid out: which rows are the positive conditioning's, which latent a row is, where in the latent it lies.

The host puts the latents once into a batch for each conditioning: a *chunk*. It tells `cond_or_uncond` and `uuids`, an entry
for each chunk, and no more; and other nodes change the rows afterwards, without changing those. So rows are always counted
where they are used:

    what is laid out            rows                         who does so
    chunks of latents           [u u c c]                    the host
    a window of the latents     [u c], [u c]                 context windows, AnimateDiff
    tiles side by side          [u c u c]                    tiled diffusion
    repeated conditionals       [u c c]                      attention couple, in cross-attention (text_rows)
    queries in tiles            [u u u u c c c c]            HyperTile, in self-attention
    rows of one kind            [u]                          reference-only controls
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch

from .carried import Carried
from .host.sampling import band_of, chunks_of, latents_told, layer_of, rows_told
from .region_map import RegionMap, at_size
from .rows import Span, chunk_by_chunk, spans_of, take

# In the options of a block: which rows of its cross-attention are the positive conditioning's, where other nodes repeat some.
ROWS = "parts2whole_rows"


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
        self._band, told = band_of(options, x.ndim), latents_told(options)
        self._latents = tuple(range(self.sampled.latents)) if told is None else told
        self._all_latents = told is None
        uuids = options.get("uuids", ())
        self._uuids = uuids if len(uuids) == len(chunks) else [None] * len(chunks)
        self._chunks = len(chunks)
        turns, rest = divmod(len(x), self._chunks * len(self._latents))
        tiles = self._chunks > 1 and turns > 1 and rest == 0
        # None: it cannot be told
        self._chunk_by_chunk = chunk_by_chunk(x, text, turns, self._chunks, len(self._latents)) if tiles else False
        self.rows = self._lay_out(len(x), self._chunks)

    @property
    def whole(self) -> bool:
        """Whether every row is a whole latent, and each latent is there once for each conditioning."""
        every = self._all_latents and len(self.rows) == self._chunks * self.sampled.latents
        return every and self._band is None and self.grid == self.sampled.grid

    @property
    def tiled(self) -> bool:
        """Whether rows are pieces of latents of which nobody tells where they lie."""
        told = any(uuid in self.sampled.areas for uuid in self._uuids) or self._band is not None
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
        layer, subset = layer_of(options), rows_told(options)
        rows = layer.rows if layer else count
        if count % rows == 0:
            return spans_of(self.flags(rows, options))
        if subset is not None and len(subset) == count:
            flags = self.flags(rows, options)
            return spans_of([flags[row] for row in subset])
        chunks = len(chunks_of(options, self._numbers))
        if chunks < self._chunks and count * self._chunks == rows * chunks:
            return spans_of(self.flags(count, options))
        raise ValueError(
            f"Another node gives the self-attention {count} rows where the layer has {rows}, so it cannot be told which of them "
            "parts belong to: remove that node, or Apply Parts2Whole."
        )

    def text_spans(self, count: int, options: dict[str, Any]) -> list[Span]:
        """The spans of a cross-attention layer's rows, of which there are `count`.

        raises: ValueError where it cannot be told what the rows are
        """
        layer, told = layer_of(options), options.get(ROWS)
        rows = layer.rows if layer else len(self.rows)
        if count == rows:
            return spans_of(self.flags(rows, options))
        if told is None or len(told) != count:
            raise ValueError(
                f"Another node gives the cross-attention {count} rows where the layer has {rows}, so it cannot be told which of "
                "them image tokens belong to: remove that node, or Apply Part Image Attention."
            )
        return spans_of(told)

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

    def maps_at(
        self, maps: Sequence[RegionMap], spans: Sequence[Span], q: torch.Tensor, options: dict[str, Any]
    ) -> list[torch.Tensor]:
        """Maps of this batch at the tokens of the positive conditioning's queries.

        q: [n, T, C], these queries
        returns: each [n, 1, h', w'] of T tokens
        raises: ValueError where it cannot be told where the tokens lie
        """
        rows, grid = sum(span.stop - span.start for span in spans if span.positive), self._grid_of(q.shape[1], options)
        if spans[-1].stop != len(self.rows) or grid is None or len(q) != rows:
            layer = layer_of(options)
            h, w = layer.grid if layer else self.grid
            raise ValueError(
                f"Another node on the MODEL gives the self-attention {q.shape[1]} tokens in {len(q)} rows where the layer has "
                f"{h * w} in {rows}, so it cannot be told which tokens are in the region: remove the region of Apply "
                "Parts2Whole, or that node (HyperTile and Token Merging do so)."
            )
        return [at_size(take(values, spans, True), grid, by_centre) for values, by_centre in maps]

    def whole_positive(self, q: torch.Tensor, options: dict[str, Any]) -> tuple[tuple[int, int], int] | None:
        """The grid (h, w) of the positive conditionings' queries [n, T, C], and how many conditionings these are; None where they
        are not one whole latent each, as other nodes' tiles and merged tokens are not."""
        grid, conditionings = self._grid_of(q.shape[1], options), sum(self.positive_chunks(options))
        whole = grid is not None and self.whole and len(q) == conditionings * self.sampled.latents
        return (grid, conditionings) if whole else None

    def _grid_of(self, tokens: int, options: dict[str, Any]) -> tuple[int, int] | None:
        """(h, w) of a layer of so many tokens; None where these are not the layer's. Where the options do not tell, it is the
        latent halved as often as it takes."""
        layer = layer_of(options)
        h, w = layer.grid if layer else self.grid
        while not layer and h * w > tokens:
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

    def flags(self, rows: int, options: dict[str, Any]) -> list[bool]:
        """For each row of a layer that no node repeats or tiles, whether it is the positive conditioning's."""
        chunks = self.positive_chunks(options)
        if self._chunk_by_chunk is None and any(chunks) and not all(chunks):
            raise self._unknown(rows, len(chunks))
        return [chunks[row.chunk] for row in self._lay_out(rows, len(chunks))]

    @staticmethod
    def _unknown(rows: int, chunks: int) -> ValueError:
        return ValueError(
            f"Another node gives the model {rows} rows for {chunks} conditionings, so it cannot be told which of them are the "
            "positive one's: remove that node, or the Apply nodes of Parts2Whole."
        )

    def whole_size(self, chunk: int = 0) -> tuple[int, int]:
        """(h, w) of the latent of which a chunk is a part"""
        size = list(self.sampled.grid if self._uuids[chunk] in self.sampled.areas else self.grid)
        if self._band is not None:
            size[self._band.dim - 2] = self._band.total
        return tuple(size)

    def _cut(self, chunk: int, whole: torch.Tensor) -> torch.Tensor:
        """[1, C, H, W] -> [1, C, h, w]"""
        if self._band is not None:
            whole = whole.index_select(self._band.dim, torch.tensor(self._band.indices, device=whole.device))
        area = self.sampled.areas.get(self._uuids[chunk])
        if area:
            whole = whole[:, :, area[2]:area[2] + self.grid[0], area[3]:area[3] + self.grid[1]]
        return whole
