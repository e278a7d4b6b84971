"""One call of the U-Net: what acts at its sigma is brought to its batch, and the patches are in place for its length."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from comfy.patcher_extension import WrappersMP

from ..bank import BlockAddress
from ..image_attention import KeysAndValues
from .applied import Applied, AppliedImageAttention, AppliedParts, AppliedPose, EverythingApplied
from .attribution import Attribution
from .batch import Batch
from .host import block_levels, copy_beside, hooks_in_force, projections, transformer_blocks
from .pose import encode_pose
from .reference_keys import project_references, takes_mask
from .run import APPLIED, ATTRIBUTION, SAMPLED, WRAPPERS, Run, run_of
from .unet_patches import AddImageTokens, AddPose, ShareReferences


def patch_call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    """Around the host's apply_model, and so around all that other nodes set on the MODEL, before ours or after: their
    replacements are called, not replaced, and nothing is left behind by an error or an interrupt."""
    options = transformer_options or {}
    model, run = executor.class_obj, run_of(options)
    run.reached = True
    every: EverythingApplied = options.get(APPLIED, EverythingApplied())
    attribution = options.get(ATTRIBUTION)
    # Sigmas are on the model's device, and to read one waits for all that a GPU has in hand: only where it matters.
    sigma = float(t.max()) if attribution is not None or every.timed else None
    acting = every if sigma is None else every.only(partial(_acts_at, sigma=sigma, sampling=model.model_sampling, run=run))
    if any(acting):
        batch = Batch(options.get(SAMPLED), options, x, c_crossattn)
        _say_what_is_not_known(batch, acting, run)
        if attribution is not None and batch.whole:
            attribution.describe(every.parts, acting.parts, batch.grid, sigma)
        else:
            attribution = None
        options = {**options, **_patches(model, acting, batch, x.device, attribution, options, run)}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _acts_at(applied: Applied, sigma: float, sampling, run: Run) -> bool:
    first, last = (
        run.keep(("sigma", percent), (), sampling.percent_to_sigma, percent) for percent in (applied.start, applied.end)
    )
    return first >= sigma >= last


def _say_what_is_not_known(batch: Batch, acting: EverythingApplied, run: Run):
    """Warns of what is tied to where in the latent or to single latents, where the batch does not tell those."""
    laid_over = [*((pose, pose.image) for pose in acting.poses), *((p, p.region) for p in acting.parts if p.region is not None)]
    for applied, maps in laid_over:
        if batch.tiled:
            run.warn(
                "the model sees tiles of the latent, and where they lie is not known. Each tile gets the whole pose and the whole "
                "region: sample without tiling, or without these."
            )
        else:
            run.meet(applied, batch.whole_size())
        if not batch.latents_known and len(maps) > 1:
            run.warn(
                "another node takes the latents of a batch in portions, and which of them it takes is not known. Each portion gets "
                "the first poses and regions: sample without that node, or with one pose and one region."
            )


def _patches(
    model, acting: EverythingApplied, batch: Batch, device: torch.device, attribution: Attribution | None, options: dict[str, Any],
    run: Run,
) -> dict[str, dict]:
    """The host's `patches` and `patches_replace`, with ours."""
    replace = {name: dict(blocks) for name, blocks in options.get("patches_replace", {}).items()}
    patches = dict(options.get("patches", {}))
    for applied in acting.poses:
        features = batch.spread(partial(_pose_features, applied, copy_beside(model, applied.guider, APPLIED), device, run))
        patches["input_block_patch"] = [*patches.get("input_block_patch", []), AddPose(features, batch)]

    if any(batch.positive_chunks(options)):
        unet, dtype = model.diffusion_model, model.get_dtype_inference()
        blocks, levels = (run.keep((find, model), (), find, unet) for find in (transformer_blocks, block_levels))
        regions = tuple(
            batch.spread(partial(_region, applied, device, run)) for applied in acting.parts if applied.region is not None
        )
        bias_as_mask = takes_mask(device, dtype, regions, options)
        hooks, strengths = hooks_in_force(model)
        for address, block in blocks.items():
            key = tuple(address)  # of the host's own type, for torch.compile
            if acting.parts:
                replaced = replace.setdefault("attn1", {})
                previous = replaced.get(key, replaced.get(key[:2]))
                as_mask, layer = bias_as_mask and previous is None, projections(block.attn1, address)
                slot, state = ("keys", address, model, hooks, as_mask, device, dtype), (*acting.parts, *strengths)
                references = run.keep(
                    slot, state, project_references, acting.parts, address, levels[address], layer, as_mask, device, dtype
                )
                replaced[key] = ShareReferences(references, layer.heads, batch, regions, attribution, previous)
            if acting.images:
                replaced = replace.setdefault("attn2", {})
                previous = replaced.get(key, replaced.get(key[:2]))
                slot = ("tokens", address, device, dtype)
                tokens = run.keep(slot, acting.images, _image_tokens, acting.images, address, device, dtype)
                replaced[key] = AddImageTokens(tokens, projections(block.attn2, address).heads, batch, previous)
    return {"patches_replace": replace, "patches": patches}


def _image_tokens(
    images: tuple[AppliedImageAttention, ...], address: BlockAddress, device: torch.device, dtype: torch.dtype
) -> list[tuple[KeysAndValues, float]]:
    return [
        ((applied.keys[address][0].to(device, dtype), applied.keys[address][1].to(device, dtype)), applied.strength)
        for applied in images
    ]


def _region(applied: AppliedParts, device: torch.device, run: Run, latent: int, size: tuple[int, int]) -> torch.Tensor:
    """The region of a latent [1, 1, h, w]; fewer regions than latents are used in turn."""
    number = latent % len(applied.region)

    def resize() -> torch.Tensor:
        return F.adaptive_avg_pool2d(applied.region[number][None, None], size).to(device)

    return run.keep(("region", applied, number, size, device), (), resize)


def _pose_features(
    applied: AppliedPose, guider: torch.nn.Module, device: torch.device, run: Run, latent: int, size: tuple[int, int]
) -> torch.Tensor:
    """The features of the pose of a latent [1, C, h, w]; fewer poses than latents are used in turn."""
    number = latent % len(applied.image)

    def encode() -> torch.Tensor:
        return encode_pose(guider, applied.image[number:number + 1], size, device) * applied.strength

    return run.keep(("pose", applied, guider, number, size, device), (), encode)


ALL_WRAPPERS = {**WRAPPERS, WrappersMP.APPLY_MODEL: patch_call}
