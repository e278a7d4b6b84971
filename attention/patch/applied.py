"""What is applied to a MODEL: plain values that travel with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, TypeVar

import torch
from comfy.model_patcher import ModelPatcher

from ...pictures.crop import WHOLE, Box, cut
from ..bank import Appearance, BlockAddress
from ..image_attention import KeysAndValues
from .carried import Carried
from .host.unet import Architecture, architecture, first_width, require_unet


@dataclass(frozen=True, eq=False)
class AppliedParts(Carried):
    """References for the shared self-attention.

    keep_removed: masked-out tokens stay in the softmax as one null key, as trained; otherwise they are dropped
    strength: weight of the references in the softmax, 1 as trained
    start, end: part of the noise schedule in which they act, 0..1
    region: [B, H, W] in 0..1, of any size, where in the target they act; None: everywhere
    factors: of the strength by depth, how often the latent was halved, from 0 on; the last one holds for all greater depths
    crop: what of the region the target shows
    by_centre: a token acts as the region is at its centre, not as far as it lies in it: see `region_map.at_size`
    """

    models: ClassVar[tuple[ModelPatcher, ...]] = ()
    appearance: Appearance
    keep_removed: bool
    strength: float
    start: float
    end: float
    region: torch.Tensor | None = None
    factors: tuple[float, ...] = (1.0,)
    crop: Box = WHOLE
    by_centre: bool = False

    def check(self, model: ModelPatcher):
        """raises: ValueError where a reference was encoded for another architecture than the MODEL's"""
        has = architecture(model)
        for reference in self.appearance.references:
            widths = {address: bank.tokens.shape[-1] for address, bank in reference.banks.items()}
            made_for = Architecture(widths, reference.context_channels)
            _require_same(made_for, has, f"The appearance of '{reference.label}'", "Encode Appearance")

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        nowhere = self.region is not None and not self.region.any()
        return self.strength == 0 or self.start >= self.end or not any(self.factors) or nowhere

    def strength_at(self, depth: int) -> float:
        """The weight of the references where the latent was halved so often."""
        return self.strength * self.factors[min(depth, len(self.factors) - 1)]

    def cut(self, box: Box) -> AppliedParts:
        """The same for a target that shows a crop. What the references look like does not depend on it."""
        if self.region is None:
            return self
        region, crop = cut(self.region, box.within(self.crop))
        return replace(self, region=region, crop=crop)


@dataclass(frozen=True, eq=False)
class AppliedPose(Carried):
    """Pose pictures [B, H, W, C] in 0..1 for the pose guider; strength multiplies its features.

    crop: what of the pictures the target shows
    """

    guider: ModelPatcher
    image: torch.Tensor
    strength: float
    start: float
    end: float
    crop: Box = WHOLE

    @property
    def models(self) -> tuple[ModelPatcher, ...]:
        """What the host loads beside the U-Net."""
        return (self.guider,)

    def check(self, model: ModelPatcher):
        """raises: ValueError for a pose guider of another width than the MODEL's"""
        expected, got = first_width(require_unet(model)), self.guider.model.conv_out.weight.shape[0]
        if got != expected:
            raise ValueError(
                f"The pose guider was made for a U-Net of width {got}, the MODEL has {expected}. Take both from the same Load "
                "Parts2Whole node."
            )

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        return self.strength == 0 or self.start >= self.end

    def cut(self, box: Box) -> AppliedPose:
        """The same for a target that shows a crop."""
        image, crop = cut(self.image, box.within(self.crop))
        return replace(self, image=image, crop=crop)


@dataclass(frozen=True, eq=False)
class AppliedImageAttention(Carried):
    """Keys and values [1, 6, C] of the image tokens at every cross-attention layer; strength multiplies their output.

    context_channels: width of the text beside which they were trained
    """

    models: ClassVar[tuple[ModelPatcher, ...]] = ()
    keys: Mapping[BlockAddress, KeysAndValues]
    context_channels: int
    strength: float
    start: ClassVar[float] = 0.0
    end: ClassVar[float] = 1.0

    def check(self, model: ModelPatcher):
        """raises: ValueError for projections that were made for another architecture than the MODEL's"""
        made_for = Architecture({address: k.shape[-1] for address, (k, _) in self.keys.items()}, self.context_channels)
        _require_same(made_for, architecture(model), "The image attention", "Load Parts2Whole")

    @property
    def idle(self) -> bool:
        """Whether it changes nothing."""
        return self.strength == 0

    def cut(self, box: Box) -> AppliedImageAttention:
        """It is tied to no place."""
        return self


Applied = AppliedParts | AppliedPose | AppliedImageAttention
Kind = TypeVar("Kind", AppliedParts, AppliedPose, AppliedImageAttention)


class EverythingApplied(NamedTuple):
    """All that is applied to a MODEL, in the order in which it was.

    crop: what the target shows of the picture that the MODEL drew before it was cut
    """

    every: tuple[Applied, ...] = ()
    crop: Box = WHOLE

    def plus(self, applied: Applied) -> EverythingApplied:
        return self._replace(every=(*self.every, applied))

    def of(self, kind: type[Kind]) -> tuple[Kind, ...]:
        return tuple(applied for applied in self.every if isinstance(applied, kind))

    def only(self, acts: Callable[[Applied], bool]) -> EverythingApplied:
        """What of it acts."""
        return self._replace(every=tuple(applied for applied in self.every if acts(applied)))

    def cut(self, box: Box) -> EverythingApplied:
        """The same for a target that shows a crop of it, without what acts outside of the crop only."""
        if box == WHOLE:
            return self
        cut = self._replace(every=tuple(applied.cut(box) for applied in self.every), crop=box.within(self.crop))
        return cut.only(lambda applied: not applied.idle)

    @property
    def timed(self) -> bool:
        """Whether something acts in a part of the noise schedule only."""
        return any(applied.start > 0 or applied.end < 1 for applied in self.every)

    @property
    def divided(self) -> bool:
        """Whether the target is divided among several people, see People in One Frame."""
        return sum(parts.by_centre and parts.region is not None for parts in self.of(AppliedParts)) > 1


def _require_same(made_for: Architecture, has: Architecture, what: str, node: str):
    if made_for != has:
        raise ValueError(
            f"{what} was made for a U-Net with {made_for}; the MODEL has {has}. Connect {node} to what belongs to this "
            "MODEL: SD1.5 to SD1.5, SDXL to SDXL."
        )
