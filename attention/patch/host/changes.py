"""What nodes changed on a model, and the weights that it has under that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import CallbacksMP, PatcherInjection
from comfy.weight_adapter.bypass import BypassInjectionManager


class WeightPatch(NamedTuple):
    """What is added to a weight, such as a LoRA.

    strength: of the patch; strength_model: what the weight itself is multiplied by
    offset: which part of the weight it is about; function: what is done to the difference; None: all of it, nothing
    """

    strength: float
    patch: Any
    strength_model: float
    offset: tuple | None
    function: Callable | None


def own_weights(patcher: ModelPatcher) -> dict[str, torch.Tensor]:
    """The model's own weights, by name, also while a clone's LoRA, hooks or objects are in it."""
    weights = patcher.model.state_dict()
    for name, original in patcher.object_patches_backup.items():
        if isinstance(original, torch.nn.Module):
            weights = {key: weight for key, weight in weights.items() if not key.startswith(f"{name}.")}
            weights |= {f"{name}.{key}": weight for key, weight in original.state_dict().items()}
        elif name in weights:
            weights[name] = original
    weights |= {name: backup[0] for name, backup in patcher.hook_backup.items()}
    return weights | {name: backup.weight for name, backup in patcher.backup.items()}


def weight_patches(patcher: ModelPatcher) -> dict[str, list[WeightPatch]]:
    """By the name of the weight."""
    return _named(patcher.patches)


def forced_hooks(patcher: ModelPatcher) -> list[tuple[float, dict[str, list[WeightPatch]]]]:
    """The strength of each hook that is always in force, and what it adds to weights."""
    hooks = patcher.forced_hooks.hooks if patcher.forced_hooks else ()
    return [(hook.strength, _named(patcher.hook_patches.get(hook.hook_ref, {}))) for hook in hooks]


def other_changes(patcher: ModelPatcher) -> dict[str, dict]:
    """What else decides what the model computes, by who is asked for it: objects in the place of its own, functions around
    weights, what is injected or done as it is loaded, and patches of attention and blocks. Its noise schedule is none of it."""
    return {
        "objects": {name: value for name, value in patcher.object_patches.items() if name != "model_sampling"},
        "weights": patcher.weight_wrapper_patches,
        "injections": patcher.injections,
        "loading": patcher.callbacks.get(CallbacksMP.ON_LOAD, {}),
        "options": patcher.model_options.get("transformer_options", {}),
    }


def patched_schedule(patcher: ModelPatcher):
    """The noise schedule that a node put in the place of the model's own; None where none did."""
    return patcher.object_patches.get("model_sampling")


def adapter(patch) -> tuple[str, Any]:
    """The kind of what a WeightPatch adds, and its tensors in tuples and lists. A plain difference counts as a LoRA."""
    return getattr(patch, "name", "lora"), getattr(patch, "weights", patch)


def injection(value) -> tuple[Callable, Callable] | None:
    """What an injection does and undoes; None for other objects."""
    return (value.inject, value.eject) if isinstance(value, PatcherInjection) else None


class Bypass(NamedTuple):
    """LoRAs that run beside the weights.

    strengths: by the name of the layer; adapters: each with the precision of its layer's weight
    """

    strengths: list[tuple[str, float]]
    adapters: list[tuple[Any, torch.dtype]]


def bypass(value) -> Bypass | None:
    """None for other objects."""
    if not isinstance(value, BypassInjectionManager):
        return None
    strengths = [(name, strength) for name, (_, strength) in value.adapters.items()]
    return Bypass(strengths, [(hook.adapter, hook.module.weight.dtype) for hook in value.hooks])


def _named(patches: dict[str, list[tuple]]) -> dict[str, list[WeightPatch]]:
    return {name: [WeightPatch(*patch) for patch in each] for name, each in patches.items()}
