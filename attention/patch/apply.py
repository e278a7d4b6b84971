"""Applies parts, pose and image tokens to a ComfyUI MODEL: the only file that changes one.

What is applied is kept in the clone's transformer_options, as plain values; wrappers there do the rest when it is sampled.
They stand in the options and not among the patcher's own wrappers, which other nodes replace as a whole.
"""

from __future__ import annotations

import logging

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import add_wrapper_with_key, get_wrappers_with_key

from .applied import Applied, EverythingApplied
from .attribution import Attribution
from .run import APPLIED, ATTRIBUTION
from .step import ALL_WRAPPERS


def apply(model: ModelPatcher, applied: Applied) -> ModelPatcher:
    """Returns a clone of the MODEL with `applied` added to what is applied already.

    raises: ValueError where the MODEL has no U-Net, or one of another architecture
    """
    applied.check(model)
    model = model.clone()
    if applied.idle:
        if applied.kind == "parts" and applied.nowhere:
            labels = ", ".join(sorted({reference.label for reference in applied.appearance.references}))
            logging.warning("Parts2Whole: the region is zero everywhere, so these parts do nothing: %s.", labels)
        return model
    options = model.model_options["transformer_options"]
    options[APPLIED] = options.get(APPLIED, EverythingApplied()).plus(applied)
    for kind, wrapper in ALL_WRAPPERS.items():
        if not get_wrappers_with_key(kind, APPLIED, options):
            add_wrapper_with_key(kind, APPLIED, wrapper, options)
    if applied.kind == "poses":
        guiders = model.get_additional_models_with_key(APPLIED)
        if not any(guider.model is applied.guider.model for guider in guiders):
            model.set_additional_models(APPLIED, [*guiders, applied.guider])
    return model


def record(model: ModelPatcher) -> tuple[ModelPatcher, Attribution]:
    """Returns a clone of the MODEL that gathers how much attention its parts get, and what it gathers."""
    model, attribution = model.clone(), Attribution()
    model.model_options["transformer_options"][ATTRIBUTION] = attribution
    return model, attribution
