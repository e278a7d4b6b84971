"""Losses that tell each layer what references are for, from data that knows where in the target each part is.

The release has none of these: it begins with a U-Net that has seen two billion pictures. From nothing, a loss at the output
alone needs very long to find the way from a colour in a reference, through features, keys and values, to its place. A pattern
takes longer still: its kind, its two colours and where it begins are of no use without each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from einops import rearrange

from attention.bank import select_tokens
from attention.reference_mask import token_mask
from attention.shared_attention import ReferenceKeys

# Of the attention in a part's region, how much should be its reference's.
LOOK = 0.6
# What attention looks at, the latents that can be read from features, the kind of a part, its two colours, where its pattern lies,
# and what of a pattern attention looks at from there.
LOSSES = ("looking", "reading", "naming", "colouring", "weaving", "matching")
# So that colours vary as much as latents do.
CONTRAST = 4.0


class Truth(NamedTuple):
    """What is known of B targets and their R references, against which a network's features are held.

    latents: [B, 4, h, w], of the targets; reference_latents: [R, 4, h, w]; masks: [R, H, W] in 0..1
    regions: [R, h, w] in 0..1, where in its target the part of each reference is
    shown: [R, h, w] in 0..1, how much of its pattern's colour each reference shows at each place
    amounts: [B, K, h, w] in 0..1, for each kind of pattern how much of it each place would show
    kinds: [R], of each reference's part: 0 for plain cloth, 1..K for its patterns, above for other things that parts are told apart
        by, such as the colours of eyes; -1 for none
    colours: [R, 6], RGB in 0..1 of each part's colour and of its pattern's, or its eyes'
    of: for each picture the numbers of its references
    """

    latents: torch.Tensor
    reference_latents: torch.Tensor
    masks: torch.Tensor
    regions: torch.Tensor
    shown: torch.Tensor
    amounts: torch.Tensor
    kinds: torch.Tensor
    colours: torch.Tensor
    of: tuple[tuple[int, ...], ...]


class Readouts(nn.Module):
    """Linear maps from a network's features to what they should tell. They serve training only.

    For each self-attention layer, by its name with underscores for dots, to the latents at its tokens' places, to the kind of a
    part, and to its two colours: from the features that the appearance encoder gives, and from what the attention adds to the
    U-Net's.
    For the pose and for each block of the U-Net's way up, to what each kind of pattern would show at a place; for these blocks also
    to what the part there does show. And from the encoder's features to what the part in the reference shows.

    patterns: how many kinds of them there are, plain not counted; kinds: how many of all. 0 where they are not known
    colours: whether a part's two colours are known
    """

    def __init__(self, unet: UNet2DConditionModel, patterns: int = 0, kinds: int = 0, colours: bool = False):
        super().__init__()
        widths = {
            _key(name): module.to_q.in_features for name, module in unet.named_modules() if name.endswith(".attn1")
        }

        def maps(widths: dict[str, int], out: int) -> nn.ModuleDict:
            return nn.ModuleDict({key: nn.Linear(width, out) for key, width in widths.items()})

        self.from_bank, self.from_output = (maps(widths, unet.config.in_channels) for _ in range(2))
        self.patterns, self.kinds = patterns, kinds
        if kinds:
            self.kind_from_bank, self.kind_from_output = (maps(widths, kinds) for _ in range(2))
        self.colours = colours
        if colours:
            self.colours_from_bank, self.colours_from_output = (maps(widths, 6) for _ in range(2))
        if patterns:
            blocks = {f"up{i}": block.resnets[-1].out_channels for i, block in enumerate(unet.up_blocks)}
            self.amounts = maps({"pose": unet.config.block_out_channels[0], **blocks}, patterns)
            self.amount = maps(blocks, 1)
            self.shown = maps(widths, 1)


class LayerHints:
    """Collects the losses of one forward pass, until `close`. Of each picture's noises, the last counts: with several, it is
    the strongest, where the picture itself tells nothing.
    """

    def __init__(self, readouts: Readouts, truth: Truth):
        self.readouts, self.truth = readouts, truth
        self.covered = torch.stack([truth.regions[list(own)].sum(0) for own in truth.of]).clamp(max=1)
        self.target_of = [i for _, i in sorted((r, i) for i, own in enumerate(truth.of) for r in own)]
        self.losses = {name: [] for name in LOSSES}
        self.closed = False

    def look(
        self, q: torch.Tensor, k: torch.Tensor, keys: ReferenceKeys, counts: list[int], own: tuple[int, ...],
        grid: tuple[int, int], heads: int,
    ):
        """One picture's attention in one layer. q, k: [T, C]; the rest as `reference_weights` has it."""
        truth, regions = self.truth, _pooled(self.truth.regions[list(own)], grid)
        weights = reference_weights(q, k, keys, counts, heads)
        self._add("looking", looking_loss(weights, regions))
        for r, region, part in zip(own, regions, weights):
            kind = int(truth.kinds[r])
            # Of a part that is hidden in the target nothing is asked.
            if 0 < kind <= self.readouts.patterns and region.sum() >= 1:
                shown = select_tokens(_pooled(truth.shown[r][None], grid)[0][:, None], token_mask(truth.masks[r], grid)).tokens
                amounts = _pooled(truth.amounts[self.target_of[r]][kind - 1][None], grid)[0]
                self._add("matching", matching_loss(part, shown[:, 0], amounts, region))

    def read_layer(self, layer: str, bank: torch.Tensor, output: torch.Tensor, grid: tuple[int, int]):
        """One layer. bank: [R, T, C], features of the references; output: [B * N, T, C], of each picture N times in a row"""
        truth, readouts, key = self.truth, self.readouts, _key(layer)
        output = self._last(output)
        self._add("reading", _error(readouts.from_bank[key](bank), truth.reference_latents, truth.masks, grid))
        self._add("reading", _error(readouts.from_output[key](output), truth.latents, self.covered, grid))
        patterned = (truth.kinds > 0) & (truth.kinds <= readouts.patterns)
        if patterned.any():
            shown = readouts.shown[key](bank[patterned])
            self._add("weaving", _error(shown, truth.shown[patterned][:, None], truth.masks[patterned], grid))
        # Of each reference its mean, and what its target makes of it at all places.
        inside, regions = _pooled(truth.masks, grid), _pooled(truth.regions, grid)
        bank = (inside[..., None] * bank).sum(1) / inside.sum(1)[:, None].clamp(min=1e-6)
        output = output[self.target_of]
        known = truth.kinds >= 0
        if readouts.kinds and known.any():
            kinds = truth.kinds[:, None].expand(-1, output.shape[1])
            logits = readouts.kind_from_output[key](output).float().transpose(1, 2)
            errors = F.cross_entropy(logits, kinds, ignore_index=-1, reduction="none")
            self._add("naming", F.cross_entropy(readouts.kind_from_bank[key](bank).float(), truth.kinds, ignore_index=-1))
            self._add("naming", _mean(errors, regions * known[:, None]))
        if readouts.colours:
            colours = CONTRAST * (truth.colours - 0.5)
            errors = (readouts.colours_from_output[key](output).float() - colours[:, None]) ** 2
            self._add("colouring", F.mse_loss(readouts.colours_from_bank[key](bank).float(), colours))
            self._add("colouring", _mean(errors.mean(-1), regions))

    def read_block(self, block: str, output: torch.Tensor):
        """The pose, or a block of the U-Net's way up. output: [B * N, C, h', w'], of each picture N times in a row

        Every picture is meant to have a pose: without one nothing tells where a pattern lies.
        """
        truth = self.truth
        cloth = (truth.kinds >= 0) & (truth.kinds <= self.readouts.patterns)
        if not self.readouts.patterns or not cloth.any():
            return
        own = [[r for r in own if cloth[r]] for own in truth.of]
        weights = torch.stack([truth.regions[numbers].sum(0) for numbers in own]).clamp(max=1)
        tokens, grid = rearrange(self._last(output), "b c h w -> b (h w) c"), tuple(output.shape[-2:])
        self._add("weaving", _error(self.readouts.amounts[block](tokens), truth.amounts, weights, grid))
        if block in self.readouts.amount:
            # Plain cloth shows none.
            kinds = F.one_hot(truth.kinds.clamp(0, self.readouts.patterns), self.readouts.patterns + 1)[:, 1:].to(truth.amounts)
            shown = torch.stack([
                (truth.regions[numbers][:, None] * kinds[numbers][..., None, None] * amounts).sum((0, 1))
                for numbers, amounts in zip(own, truth.amounts)
            ])
            self._add("weaving", _error(self.readouts.amount[block](tokens), shown[:, None], weights, grid))

    def close(self) -> dict[str, torch.Tensor]:
        """The mean of each kind of loss, by LOSSES. What gradient checkpointing computes again is not kept."""
        self.closed = True
        zero = self.truth.latents.new_zeros(())
        return {name: torch.stack(losses).mean() if losses else zero for name, losses in self.losses.items()}

    def _last(self, output: torch.Tensor) -> torch.Tensor:
        """Of each picture the last noise."""
        return rearrange(output, "(b n) ... -> b n ...", b=len(self.truth.latents))[:, -1]

    def _add(self, name: str, loss: torch.Tensor):
        if not self.closed:
            self.losses[name].append(loss)


def reference_weights(
    q: torch.Tensor, k: torch.Tensor, keys: ReferenceKeys, counts: list[int], heads: int
) -> tuple[torch.Tensor, ...]:
    """How much each target token attends to each token of each reference, over all heads, in single precision. R of [T, count]

    q, k: [T, C], the target's own; counts: of the keys of each reference, of which `keys` begins
    """
    with torch.autocast(q.device.type, enabled=False):
        bias = keys.k.new_zeros(len(keys.k)) if keys.bias is None else keys.bias
        q, own, other = (rearrange(x.float(), "t (h d) -> h t d", h=heads) for x in (q, k, keys.k))
        logits = torch.cat([q @ own.transpose(1, 2), q @ other.transpose(1, 2)], -1) / q.shape[-1] ** 0.5
        logits[..., len(k):] += bias.float()
        return logits.softmax(-1).mean(0)[:, len(k):][:, : sum(counts)].split(counts, -1)


def looking_loss(weights: Sequence[torch.Tensor], regions: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of how much each target token attends to each reference from how much it should.

    weights: R of [T, count]
    regions: [R, T] in 0..1: where it is 1, LOOK of the attention should be the reference's; the rest is the target's own
    """
    seen = torch.stack([part.sum(-1) for part in weights])
    seen = torch.cat([seen, 1 - seen.sum(0, keepdim=True)]).clamp(min=1e-4)
    asked = LOOK * regions
    asked = torch.cat([asked, 1 - asked.sum(0, keepdim=True)])
    return -(asked * seen.log()).sum(0).mean()


def matching_loss(weights: torch.Tensor, shown: torch.Tensor, amounts: torch.Tensor, region: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of how much of a pattern's colour lies where the target looks from how much it is to show there itself.

    weights: [T, count], of one reference's tokens; shown: [count] in 0..1, of these; amounts: [T] in 0..1, of the target's
    region: [T] in 0..1, where in the target the part is
    """
    seen = ((weights * shown).sum(-1) / weights.sum(-1).clamp(min=1e-6)).clamp(1e-3, 1 - 1e-3)
    return _mean(-(amounts * seen.log() + (1 - amounts) * (1 - seen).log()), region)


def _key(layer: str) -> str:
    return layer.replace(".", "_")


def _error(values: torch.Tensor, latents: torch.Tensor, weights: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """Mean square. values: [N, T, C]; latents: [N, C, h, w]; weights: [N, H, W] in 0..1"""
    weights = _pooled(weights, grid)
    errors = ((values.float() - _pooled(latents, grid)) ** 2).mean(-1)
    return _mean(errors, weights)


def _mean(errors: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (weights * errors).sum() / weights.sum().clamp(min=1)


def _pooled(maps: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """[N, H, W] -> [N, T], [N, C, H, W] -> [N, T, C]"""
    layout = "n c h w -> n (h w) c" if maps.ndim == 4 else "n h w -> n (h w)"
    return rearrange(F.adaptive_avg_pool2d(maps, grid), layout)
