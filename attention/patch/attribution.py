"""How much attention each token of the target pays to each part: shares of the softmax mass, gathered while sampling."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange

from ..attention_shares import attention_shares
from .applied import AppliedParts
from .batch import Batch
from .carried import Carried
from .rows import sum_by_latent

ITSELF, REMOVED = "the picture itself", "outside the masks"
_ADDING = threading.Lock()  # with several GPUs the host samples in a thread for each


class _Step(NamedTuple):
    """What one step's layers add up to: the sum of so many maps [B, N, h, w] of the target itself, the last keys, and then each
    reference as it came."""

    total: torch.Tensor | None = None
    count: int = 0

    def plus(self, maps: torch.Tensor, count: int) -> _Step:
        """Of the maps that come first, N may be smaller: conditionings have references of their own."""
        if self.total is None:
            return _Step(maps, count)
        total, maps = (F.pad(x, (0, 0, 0, 0, 0, maps.shape[1] - x.shape[1])) for x in (self.total, maps.to(self.total.device)))
        return _Step(total + maps, self.count + count)


class Attribution(Carried):
    """What is gathered in one sampling run, of the positive conditioning.

    pixels: of the picture, for each position of the latent
    """

    def __init__(self):
        self.begin()

    def begin(self):
        self.pixels = 8
        # Number and label of every reference, in the order in which they came, and what the keys after them are.
        self._references: list[tuple[int, str]] = []
        self._last = REMOVED
        self._by_sigma: dict[float, _Step] = {}
        self._latents = self._sigma = None

    def finish(self, latents: torch.Tensor):
        """latents: what the run ended with, to tell it from other runs"""
        self._latents = latents.detach().float().cpu().clone()
        self._to_cpu()

    def _to_cpu(self):
        """A map for every step is too much to keep on a GPU."""
        with _ADDING:
            self._by_sigma = {sigma: step._replace(total=step.total.cpu()) for sigma, step in self._by_sigma.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """The target itself, every reference in turn, and what the masks removed or the text. Empty before anything is recorded.
        Conditionings may have different references: those of one number and label are one."""
        return (ITSELF, *(label for _, label in sorted(self._references, key=itemgetter(0))), self._last) * bool(self._references)

    @property
    def by_step(self) -> dict[float, torch.Tensor]:
        """For each sigma, in the order of the steps, the shares [N], a mean over tokens, conditionings, layers and heads."""
        return {sigma: self._mean(step).mean((0, 2, 3)) for sigma, step in self._by_sigma.items()}

    def describe(self, applied: tuple[AppliedParts, ...], active: tuple[AppliedParts, ...], grid: tuple[int, int], sigma: float):
        """What the layers are about that are added next.

        applied, active: all parts, and those that act at this sigma
        grid: (h, w) of the latent
        """
        labels = [(reference.label, each) for each in applied for reference in each.appearance.references]
        acting = [number for number, (_, each) in enumerate(labels) if each in active]
        self.name([label for label, _ in labels], acting, REMOVED, grid, sigma)

    def name(
        self, labels: Sequence[str], acting: Sequence[int], last: str, grid: tuple[int, int], sigma: float, pixels: int = 8
    ):
        """The same for references of any kind.

        acting: the numbers of the labels of those that act at this sigma
        last: what the last keys are
        pixels: of the picture, for each position of the latent
        """
        self.pixels = pixels
        self._last = last
        self._references += [each for each in enumerate(labels) if each not in self._references]
        self._columns = [0, *(2 + self._references.index((number, labels[number])) for number in acting), 1]
        if sigma != self._sigma:
            self._to_cpu()
        self._grid, self._sigma = grid, sigma

    @torch.compiler.disable
    def add(
        self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, heads: int, lengths: tuple[int, ...], removed: int,
        batch: Batch, options: dict[str, Any],
    ):
        """One layer, unless other nodes have made tiles of it, or merged its tokens.

        lengths: how many keys each active reference has; removed: how many after them stand for what the masks removed
        """
        whole = batch.whole_positive(q, options)
        if whole is None:
            return
        self.add_whole(q, k, mask, heads, lengths, removed, *whole)

    @torch.compiler.disable
    def add_whole(
        self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None, heads: int, lengths: tuple[int, ...], removed: int,
        grid: tuple[int, int], conditionings: int,
    ):
        """One layer of a grid (h, w) of tokens, with the rows of so many conditionings."""
        own = k.shape[1] - sum(lengths) - removed
        shares = attention_shares(q, k, mask, heads, [own, *lengths, removed])
        every = shares.new_zeros(*shares.shape[:2], 2 + len(self._references))
        for column, share in zip(self._columns, shares.unbind(-1)):
            every[..., column] = share
        # A sum, so that it does not matter in which batches the host puts the conditionings.
        maps = rearrange(sum_by_latent(every, conditionings), "latents (h w) names -> latents names h w", h=grid[0])
        maps = F.interpolate(maps, size=self._grid, mode="bilinear", align_corners=False)
        with _ADDING:
            self._by_sigma[self._sigma] = self._by_sigma.get(self._sigma, _Step()).plus(maps, conditionings)

    def maps(self, latents: torch.Tensor) -> torch.Tensor:
        """The shares at each token: [B, N, h, w] of the latent, adding up to 1, a mean over all steps alike.

        A step's are a mean over conditionings, layers and heads.

        latents: what the sampler gave
        raises: ValueError where nothing was gathered, and where the latents are not those of the last run
        """
        if not self._by_sigma:
            raise ValueError(
                "No attention was recorded: no parts acted in this run. Connect Apply Parts2Whole, or Apply Reference Parts for an "
                "edit model, and Record Attribution to one MODEL, sample it, and connect the latent of the sampler; tiles, areas "
                "and context windows are not recorded."
            )
        # The host may hand latents on in half precision.
        same = self._latents is not None and self._latents.shape == latents.shape and torch.allclose(
            self._latents, latents.float().cpu(), rtol=1e-2, atol=1e-2, equal_nan=True
        )
        if not same:
            raise ValueError(
                "The attention recorded last is not that of this latent. Connect the first output of the sampler that has the "
                "MODEL of Record Attribution, use one Record Attribution for each sampler, and sample again with another seed."
            )
        return torch.stack([self._mean(step) for step in self._by_sigma.values()]).mean(0)

    def _mean(self, step: _Step) -> torch.Tensor:
        """[B, N, h, w], in the order of `names`"""
        mean = F.pad(step.total / step.count, (0, 0, 0, 0, 0, 2 + len(self._references) - step.total.shape[1]))
        order = sorted(range(len(self._references)), key=lambda i: self._references[i][0])
        return mean[:, [0, *(2 + i for i in order), 1]]
