"""Applies parts, pose and image tokens to a ComfyUI MODEL: the only file that changes one.

What is applied is kept in the clone's transformer_options, as plain values; wrappers there do the rest when it is sampled.
They stand in the options and not among the patcher's own wrappers, which other nodes replace as a whole.
"""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key, get_wrappers_with_key

from ...pictures.crop import Box
from .applied import Applied, EverythingApplied
from .attribution import Attribution
from .memory import plan_memory
from .run import APPLIED, ATTRIBUTION, begin_run, describe_sampled, mark_conditionings
from .step import patch_call

# In the order in which the host comes to them.
WRAPPERS = {
    WrappersMP.OUTER_SAMPLE: begin_run,
    WrappersMP.PREPARE_SAMPLING: plan_memory,
    WrappersMP.SAMPLER_SAMPLE: mark_conditionings,
    WrappersMP.CALC_COND_BATCH: describe_sampled,
    WrappersMP.APPLY_MODEL: patch_call,
}


def apply(model: ModelPatcher, applied: Applied) -> ModelPatcher:
    """Returns a clone of the MODEL with `applied` added to what is applied already.

    raises: ValueError where the MODEL has no U-Net, or one of another architecture
    """
    applied.check(model)
    model = model.clone()
    if applied.idle:
        return model
    options = model.model_options["transformer_options"]
    options[APPLIED] = options.get(APPLIED, EverythingApplied()).plus(applied)
    for kind, wrapper in WRAPPERS.items():
        if not get_wrappers_with_key(kind, APPLIED, options):
            add_wrapper_with_key(kind, APPLIED, wrapper, options)
    loaded = model.get_additional_models_with_key(APPLIED)
    new = [patcher for patcher in applied.models if not any(other.model is patcher.model for other in loaded)]
    if new:
        model.set_additional_models(APPLIED, [*loaded, *new])
    return model


def crop(model: ModelPatcher, box: Box) -> ModelPatcher:
    """Returns a clone of the MODEL for a crop of what it drew: all that is applied and tied to a place is cut to it."""
    model = model.clone()
    options = model.model_options["transformer_options"]
    if APPLIED in options:
        options[APPLIED] = options[APPLIED].cut(box)
    return model


def record(model: ModelPatcher) -> tuple[ModelPatcher, Attribution]:
    """Returns a clone of the MODEL that gathers how much attention its parts get, and what it gathers."""
    model, attribution = model.clone(), Attribution()
    model.model_options["transformer_options"][ATTRIBUTION] = attribution
    return model, attribution
