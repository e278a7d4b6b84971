"""The references of an edit model that are parts: plain values that travel on a CONDITIONING."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ..patch.carried import Carried
from ..patch.host.edit import constant

# The name in a conditioning's model_conds, which the host hands to the model as an argument of this name.
PARTS = "parts2whole_references"


@dataclass(frozen=True, eq=False)
class PartReference(Carried):
    """One picture of a part among the reference latents of a conditioning.

    index: which of those it is
    latent: what is there
    shows: [h, w], bool, where the latent shows the part; what is False is left out
    strength: what the weight of its keys is multiplied by, before the softmax is normalised
    region: [B, H, W] in 0..1, of any size, where in the target it acts; None: everywhere
    """

    index: int
    label: str
    latent: torch.Tensor
    shows: torch.Tensor
    strength: float = 1.0
    region: torch.Tensor | None = None

    def __eq__(self, other):
        """Whether both do the same to a model: the latents themselves are the host's to compare."""
        if not isinstance(other, PartReference):
            return NotImplemented
        same = (self.index, self.label, self.strength) == (other.index, other.label, other.strength)
        return same and _equal(self.shows, other.shows) and _equal(self.region, other.region)

    @property
    def nowhere(self) -> bool:
        """Whether it acts nowhere, so that all of it is left out."""
        return self.strength == 0 or self.region is not None and not self.region.any()


@dataclass(frozen=True)
class PartReferences(Carried):
    """All references of a conditioning that are parts. Those of other nodes beside them count as whole."""

    each: tuple[PartReference, ...]

    @property
    def dtype(self):
        """The host asks every argument for it on the way to the model itself. Apply Reference Parts takes this one out before.

        raises: ValueError
        """
        raise ValueError(
            "The conditioning has references from Reference Parts, but the MODEL does not know their masks. Connect Apply "
            "Reference Parts between the model loader and the sampler."
        )


def add_references(
    conditioning: list, references: Sequence[tuple[str, torch.Tensor, torch.Tensor]], strength: float = 1.0,
    region: torch.Tensor | None = None,
) -> list:
    """Puts pictures of parts behind the references that a CONDITIONING has already.

    references: label, latent and `shows` of each, see `PartReference`
    returns: another CONDITIONING
    """
    added = []
    for text, values in conditioning:
        latents, conds = list(values.get("reference_latents", ())), dict(values.get("model_conds", {}))
        before = conds[PARTS].cond.each if PARTS in conds else ()
        new = tuple(
            PartReference(len(latents) + i, label, latent, shows, strength, region)
            for i, (label, latent, shows) in enumerate(references)
        )
        conds[PARTS] = constant(PartReferences((*before, *new)))
        latents += [latent for _, latent, _ in references]
        added.append([text, {**values, "reference_latents": latents, "model_conds": conds}])
    return added


def check_references(conds: dict[str, list[dict]], latents_shape: Sequence[int]):
    """conds: the conditionings of a sampling, by their names; latents_shape: [B, C, .., h, w], of what is sampled

    raises: ValueError where another node changed the references of one after Reference Parts, and for those of another VAE
    """
    for cond in (cond for each in conds.values() for cond in each or ()):
        latents = cond.get("reference_latents") or ()
        for part in parts_of(cond):
            if part.index >= len(latents) or not _equal(latents[part.index], part.latent):  # some nodes copy conditionings
                raise ValueError(
                    f"Another node replaced the reference latents of a conditioning after Reference Parts, so that the mask of "
                    f"'{part.label}' belongs to none of them: put Reference Parts behind that node."
                )
            has, takes = ((len(shape), shape[1]) for shape in (part.latent.shape, latents_shape))
            if has != takes:  # some models take it, and draw anything
                raise ValueError(
                    f"The VAE of Reference Parts is another than the model's: '{part.label}' has a latent of {has[0]} dimensions "
                    f"and {has[1]} channels, and what is sampled has {takes[0]} and {takes[1]}. Connect Load VAE with the edit "
                    "model's own VAE."
                )


def parts_of(cond: dict) -> tuple[PartReference, ...]:
    """Of a conditioning as the host samples it."""
    carried = cond.get("model_conds", {}).get(PARTS)
    return carried.cond.each if carried is not None else ()


def _equal(a: torch.Tensor | None, b: torch.Tensor | None) -> bool:
    return a is b or a is not None and b is not None and a.device == b.device and torch.equal(a, b)
