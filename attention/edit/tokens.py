"""Which tokens of the references a model is given: those outside of their masks are taken out before the first block.

Exact: a token that is no key for any other has no effect on them, and what becomes of itself is thrown away at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..patch.carried import Carried
from ..patch.host.edit import COUNTS, token_counts


class Layout(NamedTuple):
    """The sequence that the blocks attend over: the text, the target, and what is kept of each reference in turn."""

    text: int
    target: int
    references: tuple[int, ...]

    @property
    def before_references(self) -> int:
        return self.text + self.target

    @property
    def keys(self) -> int:
        return self.before_references + sum(self.references)


class KeepTokens(Carried):
    """`post_input` patch of one call of the model.

    kept: from how many tokens each reference has, and the device: for each the numbers of those that stay, or None where all do
    layout: of the call, once the model came to it; None where it leaves its references out
    """

    def __init__(self, kept: Callable, network, x: torch.Tensor, latents: list[torch.Tensor]):
        self.kept, self.network, self.x, self.latents = kept, network, x, latents
        self.layout: Layout | None = None

    def __call__(self, args: dict[str, Any]) -> dict[str, Any]:
        options, image, ids = args.get("transformer_options", {}), args["img"], args["img_ids"]  # none before 0.20.1
        counts = token_counts(options, self.network, self.x, self.latents, ids.shape[1])
        if counts is None:
            return args
        kept = self.kept(counts, ids.device)
        target = ids.shape[1] - sum(counts)
        lengths = tuple(count if tokens is None else len(tokens) for count, tokens in zip(counts, kept))
        self.layout = Layout(args["txt"].shape[1], target, lengths)
        if all(tokens is None for tokens in kept):
            return args
        index, begin = [torch.arange(target, device=ids.device)], target
        for count, tokens in zip(counts, kept):
            index.append(begin + (torch.arange(count, device=ids.device) if tokens is None else tokens))
            begin += count
        index = torch.cat(index)
        if image.shape[1] == ids.shape[1]:  # the host's Flux KV Cache has taken the references out where it has their keys
            image = image[:, index]
        # None rather than zeros: that cache adds the keys of references that are there, however many tokens they have.
        options[COUNTS] = list(lengths) if any(lengths) else []
        return {**args, "img": image, "img_ids": ids[:, index]}
