"""Applies parts, pose and image tokens to a ComfyUI MODEL. The only file that patches one.

What is applied is kept in the clone's transformer_options, as plain values. Wrappers put the patches in place for the
length of one call of the U-Net: around those that other nodes set on the MODEL, before ours or after, so that another
node's attention replacement is called and not replaced, and nothing is left behind by an error or an interrupt.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ...encoders.pose_network import PoseNetwork
from ..bank import BlockAddress
from ..image_attention import KeysAndValues
from ..shared_attention import ReferenceGroup, ReferenceKeys, join_references
from .applied import AppliedImageAttention, AppliedParts, AppliedPose
from .attribution import Attribution
from .host import block_levels, require_unet, transformer_blocks
from .pose import encode_pose
from .unet_patches import ATTRIBUTION, CONDITIONAL, REGIONS, AddImageTokens, AddPose, ShareReferences, conditional_chunks

KEY = "parts2whole"
RUN = "parts2whole_run"
AREAS = "parts2whole_areas"


class _Areas(NamedTuple):
    """Where the chunks of a batch lie in the latent, which the host does not tell a patch.

    grid: (h, w) of the latent
    windows: (height, width, y, x) by the conditioning's uuid, for area conditioning
    """

    grid: tuple[int, int]
    windows: dict


class _Run:
    """What lasts for one sampling run: keys and values of the references and pose features.

    marked: whether the conditionings say which of them is the positive one
    """

    def __init__(self):
        self.slots = {}
        self.marked = False

    def keep(self, slot: tuple, state: tuple, compute: Callable, *args) -> Any:
        """What compute(*args) gave for this state; a slot holds one state's result, the latest."""
        if slot not in self.slots or self.slots[slot][0] != state:
            self.slots[slot] = state, compute(*args)
        return self.slots[slot][1]


def apply(model: ModelPatcher, applied: AppliedParts | AppliedPose | AppliedImageAttention) -> ModelPatcher:
    """Returns a clone of the MODEL with `applied` added to what is applied already.

    raises: ValueError where the MODEL has no U-Net, or one of another architecture
    """
    unet = require_unet(model)
    if isinstance(applied, AppliedParts):
        for reference in applied.appearance.references:
            widths = {address: bank.tokens.shape[-1] for address, bank in reference.banks.items()}
            _require_architecture(
                unet, widths, reference.context_channels, f"The appearance of '{reference.label}'", "Encode Appearance"
            )
    elif isinstance(applied, AppliedImageAttention):
        widths = {address: k.shape[-1] for address, (k, _) in applied.keys.items()}
        _require_architecture(unet, widths, applied.context_channels, "The image attention", "Load Parts2Whole")
    elif applied.guider.model.conv_out.weight.shape[0] != unet.model_channels:
        raise ValueError(
            f"The pose guider was made for a U-Net of width {applied.guider.model.conv_out.weight.shape[0]}, the MODEL has "
            f"{unet.model_channels}. Take both from the same Load Parts2Whole node."
        )

    model = model.clone()
    if applied.strength == 0 or applied.start >= applied.end:
        return model
    if isinstance(applied, AppliedParts) and not any(applied.levels):
        return model
    if isinstance(applied, AppliedParts) and applied.region is not None and not applied.region.any():
        labels = ", ".join(sorted({reference.label for reference in applied.appearance.references}))
        logging.warning("Parts2Whole: the region is zero everywhere, so these parts do nothing: %s.", labels)
        return model
    options = model.model_options["transformer_options"]
    options[KEY] = (*options.get(KEY, ()), applied)
    if not model.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _begin_run)
        model.add_wrapper_with_key(WrappersMP.SAMPLER_SAMPLE, KEY, _mark_conditionings)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _describe_batch)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _put_patches_in_place)
    if isinstance(applied, AppliedPose):
        guiders = model.get_additional_models_with_key(KEY)
        if not any(guider.model is applied.guider.model for guider in guiders):
            model.set_additional_models(KEY, [*guiders, applied.guider])
    return model


def record(model: ModelPatcher) -> tuple[ModelPatcher, Attribution]:
    """Returns a clone of the MODEL that gathers how much attention its parts get, and what it gathers."""
    model, attribution = model.clone(), Attribution()
    model.model_options["transformer_options"][ATTRIBUTION] = attribution
    return model, attribution


def _require_architecture(unet, widths: dict[BlockAddress, int], context_channels: int, what: str, node: str):
    blocks = transformer_blocks(unet)
    unet_widths = {address: block.attn1.to_q.weight.shape[0] for address, block in blocks.items()}
    unet_context = next(iter(blocks.values())).attn2.to_k.weight.shape[1]
    if (widths, context_channels) != (unet_widths, unet_context):
        raise ValueError(
            f"{what} was made for a U-Net with {_summary(widths, context_channels)}; the MODEL has "
            f"{_summary(unet_widths, unet_context)}. Connect {node} to what belongs to this MODEL: SD1.5 to SD1.5, SDXL to SDXL."
        )


def _summary(widths: dict[BlockAddress, int], context_channels: int) -> str:
    distinct = ", ".join(str(width) for width in sorted(set(widths.values())))
    return f"{len(widths)} transformer blocks of widths {distinct} and a text of width {context_channels}"


def _begin_run(executor, *args, **kwargs):
    options = executor.class_obj.model_options["transformer_options"]
    options[RUN] = _Run()
    if ATTRIBUTION not in options:
        return executor(*args, **kwargs)
    options[ATTRIBUTION].begin()
    latents = executor(*args, **kwargs)
    options[ATTRIBUTION].finish(latents)
    return latents


def _mark_conditionings(executor, guider, *args, **kwargs):
    """Marks the positive conditioning: guiders and nodes put it in any place of a batch."""
    for cond in guider.conds.get("positive") or ():
        cond[KEY] = guider.model_options["transformer_options"][RUN].marked = True
    return executor(guider, *args, **kwargs)


def _describe_batch(executor, model, conds, x_in, timestep, model_options):
    run = model_options["transformer_options"].get(RUN)
    conditional = [any(KEY in c for c in cond or ()) for cond in conds]
    # None is marked where a node makes its own conditionings: a lone one is what it asks for beside the sampler (PerpNeg's
    # empty prompt), of several the first is the positive one, as everywhere in the host.
    alone = sum(cond is not None for cond in conds) == 1
    if not any(conditional) and not (run is not None and run.marked and alone):
        conditional = [index == 0 for index in range(len(conds))]
    windows = {c["uuid"]: c["area"] for cond in conds for c in cond or () if "area" in c}
    options = {
        **model_options["transformer_options"],
        CONDITIONAL: conditional,
        AREAS: _Areas(tuple(x_in.shape[2:]), windows),
    }
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def _put_patches_in_place(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    model = executor.class_obj
    run = transformer_options.get(RUN) or _Run()
    attribution, areas = transformer_options.get(ATTRIBUTION), transformer_options.get(AREAS)
    every = transformer_options.get(KEY, ())
    # Sigmas are on the model's device, and to read one waits for all that a GPU has in hand: only where it matters.
    timed = attribution is not None or any(applied.start > 0 or applied.end < 1 for applied in every)
    sigma = float(t.max()) if timed else None
    active = [applied for applied in every if sigma is None or _acts_at(applied, sigma, model.model_sampling, run)]
    if not active:
        return executor(x, t, c_concat, c_crossattn, control, transformer_options, **kwargs)
    parts = tuple(applied for applied in active if isinstance(applied, AppliedParts))
    image_attentions = tuple(applied for applied in active if isinstance(applied, AppliedImageAttention))

    regions = [
        torch.cat(_for_chunks(applied, partial(_resize_regions, applied, x.device, run), x, transformer_options, run))
        for applied in parts if applied.region is not None
    ]

    if attribution is not None:
        if transformer_options.get("context_window") is not None or areas and areas.grid != tuple(x.shape[2:]):
            attribution = None  # a window, an area or a tile: a part of the latent
        else:
            all_parts = tuple(applied for applied in every if isinstance(applied, AppliedParts))
            attribution.describe(all_parts, parts, tuple(x.shape[2:]), sigma)

    place = x.device, model.get_dtype_inference()
    hooks, strengths = _hooks_in_force(model)
    replace = {name: dict(blocks) for name, blocks in transformer_options.get("patches_replace", {}).items()}
    bias_as_mask = takes_mask(*place, regions, transformer_options)
    positive = any(conditional_chunks(transformer_options))
    blocks, levels = (run.keep((find, model), (), find, model.diffusion_model) for find in (transformer_blocks, block_levels))
    for address, block in blocks.items() if positive else ():
        key = tuple(address)  # of the host's own type, for torch.compile
        if parts:
            replaced = replace.setdefault("attn1", {})
            previous = replaced.get(key, replaced.get(key[:2]))
            masked = bias_as_mask and previous is None
            slot, state = ("keys", address, model, hooks, masked, *place), (*parts, *strengths)
            references = run.keep(slot, state, _references, parts, address, levels[address], block.attn1, masked, *place)
            replaced[key] = ShareReferences(references, previous)
        if image_attentions:
            replaced = replace.setdefault("attn2", {})
            previous = replaced.get(key, replaced.get(key[:2]))
            slot = "tokens", address, *place
            tokens = run.keep(slot, image_attentions, _image_tokens, image_attentions, address, *place)
            replaced[key] = AddImageTokens(tokens, previous)

    patches = dict(transformer_options.get("patches", {}))
    for applied in active:
        if isinstance(applied, AppliedPose):
            encode = partial(_encode_poses, applied, _guider_of(model, applied), x.device, run)
            features = _for_chunks(applied, encode, x, transformer_options, run)
            patches["input_block_patch"] = [*patches.get("input_block_patch", []), AddPose(features)]
    options = {**transformer_options, "patches_replace": replace, "patches": patches, REGIONS: regions, ATTRIBUTION: attribution}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _acts_at(applied: AppliedParts | AppliedPose | AppliedImageAttention, sigma: float, model_sampling, run: _Run) -> bool:
    first, last = (
        run.keep(("sigma", percent), (), model_sampling.percent_to_sigma, percent) for percent in (applied.start, applied.end)
    )
    return first >= sigma >= last


def takes_mask(device: torch.device, dtype: torch.dtype, regions: list[torch.Tensor], options: dict) -> bool:
    """Whether an attention mask is the best to carry what is added to the logits; else more channels of the heads do.

    A GPU's fastest kernels take no mask, and another node's attention need not take one; in half precision a mask would
    round the bias, and with regions it is large. docs/performance.md has what each gave.
    """
    on_cpu = device.type == "cpu" and dtype == torch.float32
    return on_cpu and not regions and "optimized_attention_override" not in options


def _hooks_in_force(model) -> tuple[tuple, tuple]:
    """The hooks in force and their strengths: weight hooks change the model's weights between calls of one run."""
    patcher = model.current_patcher
    hooks = patcher.current_hooks.hooks if patcher is not None and patcher.current_hooks is not None else ()
    return tuple(hook.hook_ref for hook in hooks), tuple(hook.strength for hook in hooks)


def _references(
    parts: tuple[AppliedParts, ...], address: BlockAddress, level: int, attn1, masked: bool, device, dtype
) -> ReferenceKeys:
    """Keys and values of all references at one layer, by the denoiser's to_k and to_v.

    masked: whether an attention mask carries their bias
    """
    groups, regions = [], 0
    for applied in parts:
        banks = [reference.banks[address] for reference in applied.appearance.references]
        tokens = torch.cat([bank.tokens for bank in banks]).to(device, dtype)
        lengths = [len(bank.tokens) for bank in banks]
        region = None
        if applied.region is not None:
            region, regions = regions, regions + 1
        strength = applied.strength * applied.levels[min(level, len(applied.levels) - 1)]
        for bank, k, v in zip(banks, attn1.to_k(tokens).split(lengths), attn1.to_v(tokens).split(lengths)):
            if strength > 0:
                groups.append(ReferenceGroup(k, v, strength, bank.removed if applied.keep_removed else 0, region))
            else:
                groups.append(ReferenceGroup(k[:0], v[:0], region=region))
    references = join_references(groups)
    return references if masked else references.widened(attn1.heads)


def _image_tokens(image_attentions, address: BlockAddress, device, dtype) -> list[tuple[KeysAndValues, float]]:
    return [
        ((applied.keys[address][0].to(device, dtype), applied.keys[address][1].to(device, dtype)), applied.strength)
        for applied in image_attentions
    ]


def _for_chunks(
    applied: AppliedPose | AppliedParts, whole: Callable[[list[int], tuple[int, int]], torch.Tensor], x: torch.Tensor,
    options: dict, run: _Run,
) -> list[torch.Tensor]:
    """For every chunk of the batch [B, C, h, w], at its place in the latent.

    whole: [B, C, H, W] of the latents of these numbers, for a whole latent of this size
    """
    uuids = options.get("uuids", [None])
    rows = list(range(x.shape[0] // len(uuids)))
    areas = options.get(AREAS)
    grid = list(x.shape[2:])
    # Core's context windows: over the batch each latent keeps its own pose, over height or width the window is cut out.
    window = options.get("context_window")
    if window is not None and window.dim == 0:
        rows = window.get_tensor(torch.arange(window.total_frames)).tolist()

    out = []
    for uuid in uuids:
        area = areas.windows.get(uuid) if areas else None
        size = list(areas.grid) if area else list(grid)
        if window is not None and window.dim >= 2:
            size[window.dim - 2] = window.total_frames
        elif areas and not area and areas.grid != tuple(grid):
            run.keep(
                ("tile", applied), (), logging.warning,
                "Parts2Whole: the model sees tiles of the latent, and where they lie is not known. Each tile gets the whole pose "
                "and the whole region: sample without tiling, or without these.",
            )
        features = whole(rows, tuple(size))
        if window is not None and window.dim >= 2:
            features = window.get_tensor(features, x.device)
        if area:
            features = features[:, :, area[2]:area[2] + grid[0], area[3]:area[3] + grid[1]]
        out.append(features)
    return out


def _resize_regions(applied: AppliedParts, device: torch.device, run: _Run, rows: list[int], grid: tuple[int, int]) -> torch.Tensor:
    """The region of each latent; fewer regions than latents are used in turn."""
    regions = [row % applied.region.shape[0] for row in rows]
    return torch.cat([
        run.keep((applied, number, grid, device), (), _resize_region, applied.region[number], grid, device) for number in regions
    ])


def _resize_region(region: torch.Tensor, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    return F.adaptive_avg_pool2d(region[None, None], grid).to(device)


def _guider_of(model, applied: AppliedPose) -> PoseNetwork:
    """The pose guider, or where the host has copied this model for another GPU, the copy that goes with it."""
    base = getattr(applied.guider, "clone_base_uuid", None)  # before 0.26 the host makes no copies
    if base is not None and model.current_patcher is not None:
        for guider in model.current_patcher.get_additional_models_with_key(KEY):
            if guider.clone_base_uuid == base:
                return guider.model
    return applied.guider.model


def _encode_poses(
    applied: AppliedPose, guider: PoseNetwork, device: torch.device, run: _Run, rows: list[int], grid: tuple[int, int]
) -> torch.Tensor:
    """The features of the pose of each latent; fewer poses than latents are used in turn."""
    poses = [row % applied.image.shape[0] for row in rows]
    return torch.cat([
        run.keep((applied, guider, pose, grid, device), (), _encode_pose, applied, guider, pose, grid, device) for pose in poses
    ])


def _encode_pose(applied: AppliedPose, guider: PoseNetwork, pose: int, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    return encode_pose(guider, applied.image[pose:pose + 1], grid, device) * applied.strength
