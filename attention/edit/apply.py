"""Makes a ComfyUI MODEL of an edit model follow the masks of Reference Parts.

The conditionings say what; wrappers in the clone's transformer_options do it when it is sampled. A hook on the conditioning
could bring the wrappers along without a node on the MODEL, but the host gives up its dynamic VRAM where a conditioning has one.
"""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP, add_wrapper_with_key, get_wrappers_with_key

from ..patch.host.edit import require_edit_model
from ..patch.host.sampling import all_conds
from ..patch.host.warnings import warn
from ..patch.run import begin_run, describe_sampled, mark_conditionings, run_of
from .memory import count_kept, plan_memory
from .references import PARTS, parts_of
from .step import PERCENTS, patch_call


def describe_batch(executor, model, conds, *args, **kwargs):
    count_kept(conds)
    return describe_sampled(executor, model, conds, *args, **kwargs)


def sample(executor, noise, *args, **kwargs):
    latents = begin_run(executor, noise, *args, **kwargs)
    guider = executor.class_obj
    run = run_of(guider.model_options["transformer_options"])
    if not run.took_references and any(map(parts_of, all_conds(guider))):
        run.warn(
            "the run ended without a call of the model that reached the parts of Reference Parts, so they did nothing. A node that "
            "caches or replaces the model's calls is the likely cause: remove it."
        )
    return latents


# In the order in which the host comes to them.
WRAPPERS = {
    WrappersMP.OUTER_SAMPLE: sample,
    WrappersMP.PREPARE_SAMPLING: plan_memory,
    WrappersMP.SAMPLER_SAMPLE: mark_conditionings,
    WrappersMP.CALC_COND_BATCH: describe_batch,
    WrappersMP.APPLY_MODEL: patch_call,
}


def apply_references(model: ModelPatcher, start: float = 0.0, end: float = 1.0) -> ModelPatcher:
    """Returns a clone of the MODEL that takes the parts of its conditionings by their masks.

    start, end: part of the noise schedule in which they act, 0..1; elsewhere they are left out
    raises: ValueError for a model that is no edit model of a known kind
    """
    require_edit_model(model)
    model = model.clone()
    options = model.model_options["transformer_options"]
    if options.get(PERCENTS, (start, end)) != (start, end):
        warn(
            "the MODEL has an Apply Reference Parts already, whose percents no longer count: one is enough, for all parts of all "
            "conditionings. Remove one of them."
        )
    options[PERCENTS] = start, end
    for kind, wrapper in WRAPPERS.items():
        if not get_wrappers_with_key(kind, PARTS, options):
            add_wrapper_with_key(kind, PARTS, wrapper, options)
    return model
