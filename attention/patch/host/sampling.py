"""What a run of the host's sampler, and a call of the U-Net in it, are about."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn as nn
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context


def prompt_id() -> str | None:
    """The prompt that is being executed; None outside the host's execution."""
    context = get_executing_context()
    return context and context.prompt_id


def hooks_in_force(model) -> tuple[tuple, tuple]:
    """The hooks in force and their strengths: weight hooks change the model's weights between calls of one run."""
    patcher = model.current_patcher
    hooks = patcher.current_hooks.hooks if patcher is not None and patcher.current_hooks is not None else ()
    return tuple(hook.hook_ref for hook in hooks), tuple(hook.strength for hook in hooks)


def copy_beside(model, patcher: ModelPatcher, key: str) -> nn.Module:
    """The network of a patcher among the additional models of this key, or where the host has copied `model` for another GPU,
    the copy that goes with it (0.26.0 and newer)."""
    base = getattr(patcher, "clone_base_uuid", None)
    if base is not None and model.current_patcher is not None:
        for other in model.current_patcher.get_additional_models_with_key(key):
            if other.clone_base_uuid == base:
                return other.model
    return patcher.model


def heavier(model: ModelPatcher, noise_shape, extra_bytes: float) -> list[float]:
    """A shape of noise for which the host plans so much more memory. It counts latents and nothing else: these are some more."""
    latents, *rest = noise_shape
    of_one = model.model.memory_required([1, *rest])
    return [latents + extra_bytes / of_one, *rest] if of_one else noise_shape  # a model may ask it to plan nothing


def positive_conds(guider) -> list[dict]:
    """The conditionings that a guider calls positive, as the sampler gets them. Some guiders have none of that name."""
    return guider.conds.get("positive") or []


def has_windows(model_options: dict[str, Any]) -> bool:
    """Whether the U-Net gets pieces of the latent, by the host's context windows, and not the whole of it."""
    return "context_handler" in model_options


def all_conds(guider) -> list[dict]:
    """All conditionings of a guider, as the sampler gets them."""
    return [cond for each in guider.conds.values() for cond in each or ()]


class Band(NamedTuple):
    """Which rows (dim 2) or columns (dim 3) of the latent a call is about: their numbers, and how many there are in all."""

    dim: int
    indices: tuple[int, ...]
    total: int


def latents_told(options: dict[str, Any]) -> tuple[int, ...] | None:
    """The numbers of the latents that a call is about, by whoever tells them; None: all."""
    core = options.get("context_window")
    if core is not None:
        return _window_indices(core) if core.dim == 0 else None
    frames = options.get("ad_params") or {}  # AnimateDiff-Evolved
    return None if frames.get("sub_idxs") is None else tuple(int(i) for i in frames["sub_idxs"])


def band_of(options: dict[str, Any], dimensions: int = 4) -> Band | None:
    """The band of the latent that a call is about; None: the whole of it, as far as anyone tells.

    dimensions: of the latents, whose last two are rows and columns
    """
    core = options.get("context_window")
    dim = 0 if core is None else core.dim + 4 - dimensions
    return None if dim < 2 else Band(dim, _window_indices(core), core.total_frames)


def _window_indices(window) -> tuple[int, ...]:
    indices = window.get_tensor(torch.arange(window.total_frames), dim=0) if window.total_frames > 1 else torch.zeros(1)
    return tuple(int(i) for i in indices)


def areas_of(conds: list) -> dict:
    """(height, width, y, x) in latents by the conditioning's uuid, for area conditioning"""
    areas = {c["uuid"]: c["area"] for cond in conds for c in cond or () if "area" in c and "uuid" in c}
    # One in percent has an entry for the frames of a latent too.
    return {uuid: (*area[:len(area) // 2][-2:], *area[-2:]) for uuid, area in areas.items()}


def chunks_of(options: dict[str, Any], otherwise: list[int]) -> list[int]:
    """For each conditioning in the batch its number among those that the guider asked for. Other nodes may leave it out."""
    return options.get("cond_or_uncond", otherwise)


class Layer(NamedTuple):
    """How many rows a transformer block gets, and the grid (h, w) of its tokens, before other nodes change them."""

    rows: int
    grid: tuple[int, int]


def layer_of(options: dict[str, Any]) -> Layer | None:
    """The layer that an attention is called in; None where another node's options do not tell."""
    shape = options.get("activations_shape")
    return shape and Layer(shape[0], tuple(shape[2:]))


def rows_told(options: dict[str, Any]) -> list[int] | None:
    """The numbers of the layer's rows that another node's reference-only control may give to the attention by themselves."""
    return options.get("ref_uncond_idxs")
