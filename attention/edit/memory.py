"""What the host plans memory for: the tokens that are kept, not the whole references."""

from __future__ import annotations

import math

from ..patch.host.edit import KeptLatents
from .references import PartReference, check_references, parts_of


def plan_memory(executor, model, noise_shape, conds, *args, **kwargs):
    """Around the host's preparation of a sampling, where it makes room for the model and what it computes."""
    check_references(conds, noise_shape)
    planned = {name: [_smaller(cond) for cond in each] for name, each in conds.items()}
    real_model, _, models = executor(model, noise_shape, planned, *args, **kwargs)
    return real_model, conds, models


def count_kept(conds: list[list[dict] | None]):
    """In what the host is asked for at once, where it decides how much of it makes one batch."""
    for cond in (cond for each in conds for cond in each or ()):
        latents, parts = cond.get("model_conds", {}).get("ref_latents"), parts_of(cond)
        if parts and latents is not None and not isinstance(latents, KeptLatents):
            sizes = [latent[0].numel() for latent in latents.cond]
            kept = sum(size * share for size, share in zip(sizes, _shares(parts, len(sizes))))
            cond["model_conds"] = {**cond["model_conds"], "ref_latents": KeptLatents(latents.cond, kept / sum(sizes))}


def _smaller(cond: dict) -> dict:
    parts, latents = parts_of(cond), cond.get("reference_latents")
    if not parts:
        return cond
    shares = _shares(parts, len(latents))
    return {**cond, "reference_latents": [
        # A view of as many of its positions as are kept.
        latent.flatten(2)[:, :, :math.ceil(share * latent[0, 0].numel()), None] for latent, share in zip(latents, shares)
    ]}


def _shares(parts: tuple[PartReference, ...], count: int) -> list[float]:
    """The share of each of so many references that is kept, to within a token's edges."""
    of = {part.index: 0.0 if part.nowhere else float(part.shows.float().mean()) for part in parts}
    return [of.get(i, 1.0) for i in range(count)]
