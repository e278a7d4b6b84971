"""One call of an edit model: its references are brought to the tokens that their masks leave, and what weighs them is in place
for its length."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch

from ..patch.batch import Batch
from ..patch.host.edit import kept_tokens, pixels_of
from ..patch.run import ATTRIBUTION, SAMPLED, Run, run_of
from .attention import WeighReferences, record_shares
from .references import PARTS, PartReference
from .tokens import KeepTokens

# The name in transformer_options of the part of the noise schedule in which parts act.
PERCENTS = "parts2whole_reference_percents"


def patch_call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    """Around the host's apply_model, and so around all that other nodes set on the MODEL, before ours or after."""
    options, model = transformer_options or {}, executor.class_obj
    run, attribution = run_of(options), options.get(ATTRIBUTION)
    carried, latents = kwargs.pop(PARTS, None), kwargs.get("ref_latents")
    parts = carried.each if carried is not None else ()
    if not parts and (attribution is None or not latents):
        return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)

    _require_fitting(parts, latents or [])
    percents = options.get(PERCENTS, (0.0, 1.0))
    # Sigmas are on the model's device, and to read one waits for all that a GPU has in hand: only where it matters.
    sigma = float(t.max()) if attribution is not None or percents != (0.0, 1.0) else None
    acting = sigma is None or run.acts_at(sigma, percents, model.model_sampling)
    of_latents = [next((part for part in parts if part.index == i), None) for i in range(len(latents))]
    tokens = KeepTokens(partial(_kept, of_latents, acting, run), model.diffusion_model, x, latents)
    patches = options.get("patches", {})
    options = {**options, "patches": {**patches, "post_input": [*patches.get("post_input", []), tokens]}}
    regions = [part.region for part in parts if acting and part.region is not None and not part.nowhere]
    # Tokens and strengths are the same for every row, however other nodes lay out the batch.
    batch = Batch(options.get(SAMPLED), options, x, c_crossattn) if regions or attribution is not None else None
    run.lay_over(batch, ((region, "region", region) for region in regions), "give that node conditionings without a {what}")
    override = _override(tokens, of_latents if acting else [None] * len(latents), batch, x, run, options)
    if attribution is not None and batch.whole and any(batch.positive_chunks(options)):
        labels = [f"reference {i + 1}" if part is None else part.label for i, part in enumerate(of_latents)]
        attribution.name(labels, range(len(labels)), "the text", batch.grid, sigma, pixels_of(model))
        override.record = partial(record_shares, attribution=attribution, batch=batch, options=options)
    if override.acts:
        options["optimized_attention_override"] = override
    out = executor(x, t, c_concat, c_crossattn, control, options, **kwargs)
    # What skips calls, as EasyCache does, does not skip the first of a conditioning.
    conditionings = set(options.get("uuids", (None,)))
    if tokens.layout is not None:
        run.took_references |= conditionings
    elif parts and not conditionings <= run.took_references:
        raise ValueError(
            f"The {type(model.diffusion_model).__name__} left its reference latents out, so the parts would do nothing. Krea 2 "
            "needs the host's node Edit Model Reference Method behind Reference Parts, and Qwen-Image needs ComfyUI 0.20.1 or "
            "newer; else another node on the MODEL replaces its calls: remove that."
        )
    return out


def _require_fitting(parts: tuple[PartReference, ...], latents: list[torch.Tensor]):
    for part in parts:
        if part.index >= len(latents) or tuple(latents[part.index].shape[-2:]) != tuple(part.shows.shape):
            raise ValueError(
                f"The mask of '{part.label}' does not fit the reference latent that the model gets in its place: another node "
                "changed the references. Put Reference Parts behind that node."
            )


def _kept(
    of_latents: list[PartReference | None], acting: bool, run: Run, counts: list[int], device: torch.device
) -> list[torch.Tensor | None]:
    """For each reference the numbers of the tokens that stay, or None where all do. Whole references of other nodes always do."""
    kept = []
    for part, count in zip(of_latents, counts):
        tokens = None
        if part is not None and (not acting or part.nowhere):
            tokens = torch.zeros(0, dtype=torch.int64, device=device)
        elif part is not None:
            tokens = run.keep(("tokens", part.index, count, device), part, _tokens_of, part, count, device)
        kept.append(tokens if tokens is None or len(tokens) < count else None)
    return kept


def _tokens_of(part: PartReference, count: int, device: torch.device) -> torch.Tensor:
    return kept_tokens(part.shows, count).to(device)


def _override(
    tokens: KeepTokens, of_latents: list[PartReference | None], batch: Batch | None, x: torch.Tensor, run: Run,
    options: dict[str, Any],
) -> WeighReferences:
    """batch: None where nothing has a region"""
    strengths = [1.0 if part is None or part.nowhere else part.strength for part in of_latents]
    # The parts of one Reference Parts node share a region.
    with_region = [part for part in of_latents if part is not None and part.region is not None and not part.nowhere]
    first = {id(part.region): part for part in reversed(with_region)}
    maps = [batch.spread(partial(run.region, part.region, x.device)) for part in first.values()]
    numbers = [list(first).index(id(part.region)) if part in with_region else None for part in of_latents]
    frames = x.shape[2] if x.ndim == 5 else 1
    previous = options.get("optimized_attention_override")
    return WeighReferences(tokens, strengths, numbers, torch.cat(maps, 1) if maps else None, frames, previous)
