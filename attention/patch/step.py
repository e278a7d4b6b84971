"""One call of the U-Net: what acts at its sigma is brought to its batch, and the patches are in place for its length."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch

from ..bank import BlockAddress
from ..image_attention import KeysAndValues
from .applied import AppliedImageAttention, AppliedParts, AppliedPose, EverythingApplied
from .attribution import Attribution
from .batch import Batch
from .host.sampling import copy_beside, hooks_in_force
from .host.unet import block_depths, projections, transformer_blocks
from .pose import AddPose, encode_pose
from .reference_keys import project_references
from .region_map import RegionMap
from .run import APPLIED, ATTRIBUTION, SAMPLED, Run, run_of
from .text_rows import TellRows
from .unet_patches import AddImageTokens, ShareReferences, takes_mask


class Call(NamedTuple):
    """One call of the U-Net.

    model: the host's, which wears what is patched; options: its transformer_options
    device, dtype: where and in which precision it computes
    """

    model: Any
    options: dict[str, Any]
    batch: Batch
    run: Run
    device: torch.device
    dtype: torch.dtype


def patch_call(executor, x, t, c_concat=None, c_crossattn=None, control=None, transformer_options=None, **kwargs):
    """Around the host's apply_model, and so around all that other nodes set on the MODEL, before ours or after: their
    replacements are called, not replaced, and nothing is left behind by an error or an interrupt."""
    options = transformer_options or {}
    model, run = executor.class_obj, run_of(options)
    run.reached = True
    applied: EverythingApplied = options.get(APPLIED, EverythingApplied())
    attribution = options.get(ATTRIBUTION)
    # Sigmas are on the model's device, and to read one waits for all that a GPU has in hand: only where it matters.
    sigma = float(t.max()) if attribution is not None or applied.timed else None
    acting = applied if sigma is None else applied.only(
        lambda each: run.acts_at(sigma, (each.start, each.end), model.model_sampling)
    )
    if acting.every:
        batch = Batch(options.get(SAMPLED), options, x, c_crossattn)
        poses = ((applied, "pose", applied.image) for applied in acting.of(AppliedPose))
        regions = ((applied, "region", applied.region) for applied in acting.of(AppliedParts) if applied.region is not None)
        run.lay_over(batch, (*poses, *regions))
        if attribution is not None and batch.whole:
            attribution.describe(applied.of(AppliedParts), acting.of(AppliedParts), batch.grid, sigma)
        else:
            attribution = None
        call = Call(model, options, batch, run, x.device, model.get_dtype_inference())
        options = {**options, **_patches(call, acting, attribution)}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _patches(call: Call, acting: EverythingApplied, attribution: Attribution | None) -> dict[str, dict]:
    """The host's `patches` and `patches_replace`, with ours."""
    replace = {name: dict(blocks) for name, blocks in call.options.get("patches_replace", {}).items()}
    patches = dict(call.options.get("patches", {}))
    for applied in acting.of(AppliedPose):
        guider = copy_beside(call.model, applied.guider, APPLIED)
        features = call.batch.spread(partial(_pose_features, call, applied, guider))
        patches["input_block_patch"] = [*patches.get("input_block_patch", []), AddPose(features, call.batch)]
    if any(call.batch.positive_chunks(call.options)):
        if parts := acting.of(AppliedParts):
            _share_references(call, replace, parts, attribution)
        if images := acting.of(AppliedImageAttention):
            _add_image_tokens(call, replace, images)
            if others := patches.get("attn2_patch"):
                patches["attn2_patch"] = [TellRows(others, call.batch)]
    return {"patches_replace": replace, "patches": patches}


def _share_references(
    call: Call, replace: dict[str, dict], parts: tuple[AppliedParts, ...], attribution: Attribution | None
):
    model, run, where = call.model, call.run, (call.device, call.dtype)
    regions = tuple(
        RegionMap(call.batch.spread(partial(run.region, p.region, call.device, crop=p.crop, by_centre=p.by_centre)), p.by_centre)
        for p in parts if p.region is not None
    )
    depths = run.keep(("depths", model), (), block_depths, model.diffusion_model)
    bias_as_mask = takes_mask(*where, regions, call.options)
    hooks, strengths = hooks_in_force(model)
    for address, block in _blocks(call).items():
        previous = _previous(replace, "attn1", address)
        as_mask, layer = bias_as_mask and previous is None, projections(block.attn1, address)
        slot, state = ("keys", address, model, hooks, as_mask, *where), (*parts, *strengths)
        references = run.keep(slot, state, project_references, parts, address, depths[address], layer, as_mask, *where)
        replace["attn1"][tuple(address)] = ShareReferences(references, layer.heads, call.batch, regions, attribution, previous)


def _add_image_tokens(call: Call, replace: dict[str, dict], images: tuple[AppliedImageAttention, ...]):
    where = call.device, call.dtype
    for address, block in _blocks(call).items():
        previous, heads = _previous(replace, "attn2", address), projections(block.attn2, address).heads
        tokens = call.run.keep(("tokens", address, *where), images, _image_tokens, images, address, *where)
        replace["attn2"][tuple(address)] = AddImageTokens(tokens, heads, call.batch, previous)


def _blocks(call: Call) -> dict[BlockAddress, torch.nn.Module]:
    return call.run.keep(("blocks", call.model), (), transformer_blocks, call.model.diffusion_model)


def _previous(replace: dict[str, dict], kind: str, address: BlockAddress) -> Callable | None:
    """Another node's replacement of this block, which it may name by its stage only. Blocks are named in the host's own type,
    for torch.compile."""
    blocks, key = replace.setdefault(kind, {}), tuple(address)
    return blocks.get(key, blocks.get(key[:2]))


def _image_tokens(
    images: tuple[AppliedImageAttention, ...], address: BlockAddress, device: torch.device, dtype: torch.dtype
) -> list[tuple[KeysAndValues, float]]:
    return [
        ((applied.keys[address][0].to(device, dtype), applied.keys[address][1].to(device, dtype)), applied.strength)
        for applied in images
    ]


def _pose_features(
    call: Call, applied: AppliedPose, guider: torch.nn.Module, latent: int, size: tuple[int, int]
) -> torch.Tensor:
    """The features of the pose of a latent [1, C, h, w]; fewer poses than latents are used in turn."""
    number = latent % len(applied.image)

    def encode() -> torch.Tensor:
        features = encode_pose(guider, applied.image[number:number + 1], size, call.device, applied.crop)
        return (features * applied.strength).to(call.dtype)

    return call.run.keep(("pose", applied, guider, number, size, call.device, call.dtype), (), encode)
