"""Applies parts, pose and image tokens to a ComfyUI MODEL. The only file that patches one.

What is applied is kept in the clone's transformer_options, as plain values; wrappers put the patches in place for the
length of one call of the U-Net. So they come after every other node's patches whatever the order of the nodes is, an
attention replacement by another node is called and not replaced, and nothing is left behind by an error or an interrupt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import comfy.utils
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP

from ..encoders.pose_guider import encode_pose
from .bank import Appearance, BlockAddress
from .image_attention import KeysAndValues
from .shared_attention import ReferenceKeys, join_references, shared_attention
from .unet_blocks import require_unet, transformer_blocks

KEY = "parts2whole"


@dataclass(frozen=True, eq=False)
class AppliedParts:
    """References for the shared self-attention.

    keep_removed: masked-out tokens stay in the softmax as zero keys, as trained; otherwise they are dropped
    strength: weight of the references in the softmax, 1 as trained
    start, end: part of the sampling in which they act, 0..1
    """

    appearance: Appearance
    keep_removed: bool
    strength: float
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class AppliedPose:
    """A pose picture [B, H, W, C] in 0..1 for the pose guider; strength multiplies its features."""

    guider: ModelPatcher
    image: torch.Tensor
    strength: float
    start: float
    end: float


@dataclass(frozen=True, eq=False)
class AppliedImageAttention:
    """Keys and values [1, 6, C] of the image tokens at every cross-attention layer; strength multiplies its output."""

    keys: Mapping[BlockAddress, KeysAndValues]
    strength: float
    start: float = 0.0
    end: float = 1.0


class _Chunks(NamedTuple):
    """What the host does not tell a patch about the chunks of a batch.

    conditional: for each index of cond_or_uncond, whether it is the positive conditioning
    areas: (height, width, y, x) in the latent by the conditioning's uuid, for area conditioning
    grid: (h, w) of the whole latent
    """

    conditional: list[bool]
    areas: dict
    grid: tuple[int, int]


class _Run:
    """What lasts for one sampling run: references' keys and values and pose features, each computed once."""

    def __init__(self, guider):
        self.guider = guider
        self.cache = {}


def apply(model: ModelPatcher, applied: AppliedParts | AppliedPose | AppliedImageAttention) -> ModelPatcher:
    """Returns a clone of the MODEL with `applied` added to what is applied already.

    raises: ValueError where the MODEL has no U-Net, or one of another architecture
    """
    unet = require_unet(model)
    if isinstance(applied, AppliedParts):
        for reference in applied.appearance.references:
            widths = {address: bank.tokens.shape[-1] for address, bank in reference.banks.items()}
            _require_same_layers(unet, "attn1", widths, f"The appearance of '{reference.label}'", "Encode Appearance")
    elif isinstance(applied, AppliedImageAttention):
        widths = {address: k.shape[-1] for address, (k, _) in applied.keys.items()}
        _require_same_layers(unet, "attn2", widths, "The image attention", "Load Parts2Whole")
    elif applied.guider.model.conv_out.weight.shape[0] != unet.model_channels:
        raise ValueError(
            f"The pose guider was made for a U-Net of width {applied.guider.model.conv_out.weight.shape[0]}, the MODEL has "
            f"{unet.model_channels}. Take both from the same Load Parts2Whole node."
        )

    model = model.clone()
    if applied.strength == 0 or applied.start >= applied.end:
        return model
    options = model.model_options["transformer_options"]
    options[KEY] = (*options.get(KEY, ()), applied)
    if not model.get_wrappers(WrappersMP.APPLY_MODEL, KEY):
        model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, KEY, _begin_run)
        model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, KEY, _label_chunks)
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, _put_patches_in_place)
    if isinstance(applied, AppliedPose):
        guiders = model.get_additional_models_with_key(KEY)
        model.set_additional_models(KEY, [*guiders, applied.guider])
    return model


def _require_same_layers(unet, layer: str, widths: dict[BlockAddress, int], what: str, node: str):
    expected = {address: getattr(block, layer).to_q.weight.shape[0] for address, block in transformer_blocks(unet).items()}
    if widths != expected:
        raise ValueError(
            f"{what} was made for a U-Net with {len(widths)} transformer blocks of widths {_summary(widths)}, the MODEL has "
            f"{len(expected)} of widths {_summary(expected)}. Connect {node} to what belongs to this MODEL: SD1.5 to SD1.5, "
            "SDXL to SDXL."
        )


def _summary(widths: dict[BlockAddress, int]) -> str:
    return ", ".join(str(width) for width in sorted(set(widths.values())))


def _begin_run(executor, *args, **kwargs):
    guider = executor.class_obj
    guider.model_options["transformer_options"][KEY + "_run"] = _Run(guider)
    return executor(*args, **kwargs)


def _label_chunks(executor, model, conds, x_in, timestep, model_options):
    """Finds the positive conditioning, which guiders and nodes put in any place; the first, where we know none of them."""
    run = model_options["transformer_options"].get(KEY + "_run")
    known = {id(cond): name == "positive" for name, cond in run.guider.conds.items()} if run else {}
    has_positive = any(known.get(id(cond)) for cond in conds)
    conditional = [known.get(id(cond), index == 0 and not has_positive) for index, cond in enumerate(conds)]
    areas = {c["uuid"]: c["area"] for cond in conds if cond is not None for c in cond if "area" in c}
    chunks = _Chunks(conditional, areas, tuple(x_in.shape[2:]))
    options = {**model_options["transformer_options"], KEY + "_chunks": chunks}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})


def _put_patches_in_place(executor, x, t, c_concat, c_crossattn, control, transformer_options, **kwargs):
    model = executor.class_obj
    sigma = float(t.max())
    percent_to_sigma = model.model_sampling.percent_to_sigma
    active = [
        applied for applied in transformer_options.get(KEY, ())
        if percent_to_sigma(applied.start) >= sigma >= percent_to_sigma(applied.end)
    ]
    parts = [applied for applied in active if isinstance(applied, AppliedParts)]
    image_attention = [applied for applied in active if isinstance(applied, AppliedImageAttention)]
    poses = [applied for applied in active if isinstance(applied, AppliedPose)]
    run = transformer_options.get(KEY + "_run")
    # Weight hooks change the weights between calls of one run, and with them the references' keys and values.
    hooked = model.current_patcher is not None and model.current_patcher.current_hooks is not None
    cache = run.cache if run and not hooked else {}

    replace = {name: dict(blocks) for name, blocks in transformer_options.get("patches_replace", {}).items()}
    patches = dict(transformer_options.get("patches", {}))
    blocks = transformer_blocks(model.diffusion_model) if parts or image_attention else {}
    for address, block in blocks.items():
        if parts:
            attn1 = replace.setdefault("attn1", {})
            previous = attn1.get(address, attn1.get(address[:2]))
            attn1[address] = _SharedAttention(parts, address, block.attn1, previous, cache)
        if image_attention:
            attn2 = replace.setdefault("attn2", {})
            previous = attn2.get(address, attn2.get(address[:2]))
            attn2[address] = _WithImageTokens([(a.keys[address], a.strength) for a in image_attention], previous)
    if poses:
        patches["input_block_patch"] = [*patches.get("input_block_patch", []), _AddPose(poses, cache)]

    options = {**transformer_options, "patches_replace": replace, "patches": patches}
    return executor(x, t, c_concat, c_crossattn, control, options, **kwargs)


def _conditional_chunks(options: dict) -> list[bool]:
    """For each chunk of the batch whether it belongs to the positive conditioning."""
    indices = options.get("cond_or_uncond", [0])
    chunks = options.get(KEY + "_chunks")
    return [chunks.conditional[index] if chunks else index == 0 for index in indices]


def _attend(q, k, v, options: dict, heads: int, previous, chunks: list[int]):
    """The attention that the user chose, or another node's replacement. chunks: the part of the batch that q, k, v are."""
    if previous is None:
        return optimized_attention(
            q, k, v, heads, attn_precision=options["attn_precision"], transformer_options=options
        )
    options = {**options, "dim_head": q.shape[-1] // heads}
    for name in ("cond_or_uncond", "uuids"):
        if name in options:
            options[name] = [options[name][chunk] for chunk in chunks]
    # A replacement that hands on the values, as Perturbed-Attention Guidance does, has a row for every key: ours come last.
    return previous(q, k, v, options)[:, :q.shape[1]]


class _SharedAttention:
    """attn1 replacement: the conditional chunks attend to the references too."""

    def __init__(self, parts: list[AppliedParts], address: BlockAddress, attn1, previous, cache: dict):
        self.parts = parts
        self.address = address
        self.attn1 = attn1
        self.previous = previous
        self.cache = cache

    def __call__(self, q, k, v, options):
        heads = options["n_heads"]
        conditional = _conditional_chunks(options)
        out = [None] * len(conditional)
        for sees_references in (False, True):
            chunks = [i for i, flag in enumerate(conditional) if flag == sees_references]
            if not chunks:
                continue
            q_, k_, v_ = (_select_chunks(x, chunks, len(conditional)) for x in (q, k, v))
            # HyperTile makes a batch of tiles of the queries alone; the host's attention then reads the keys as such a batch.
            k_, v_ = (x.reshape(q_.shape[0], -1, x.shape[-1]) for x in (k_, v_))

            def attend(q, k, v, chunks=chunks):
                return _attend(q, k, v, options, heads, self.previous, chunks)

            result = shared_attention(q_, k_, v_, self.references(q_), heads, attend) if sees_references else attend(q_, k_, v_)
            for chunk, rows in zip(chunks, result.chunk(len(chunks))):
                out[chunk] = rows
        return torch.cat(out)

    def references(self, q: torch.Tensor) -> ReferenceKeys:
        """Keys and values of all references, projected by the denoiser's to_k and to_v: once per run."""
        key = (self.attn1, q.device, q.dtype, *self.parts)
        if key not in self.cache:
            groups = []
            for applied in self.parts:
                banks = [reference.banks[self.address] for reference in applied.appearance.references]
                tokens = torch.cat([bank.tokens for bank in banks]).to(q.device, q.dtype)
                removed = sum(bank.removed for bank in banks) if applied.keep_removed else 0
                groups.append((self.attn1.to_k(tokens), self.attn1.to_v(tokens), applied.strength, removed))
            self.cache[key] = join_references(groups)
        return self.cache[key]


class _WithImageTokens:
    """attn2 replacement: adds the attention to the image tokens in the conditional chunks.

    In the unconditional chunks all tokens are zero as trained, so that their values add exactly nothing.
    """

    def __init__(self, applied: list[tuple[KeysAndValues, float]], previous):
        self.applied = applied
        self.previous = previous

    def __call__(self, q, k, v, options):
        heads = options["n_heads"]
        conditional = _conditional_chunks(options)
        out = _attend(q, k, v, options, heads, self.previous, list(range(len(conditional))))
        chunks = [i for i, flag in enumerate(conditional) if flag]
        if not chunks:
            return out
        out = list(out.chunk(len(conditional)))
        q = _select_chunks(q, chunks, len(conditional))
        for (k, v), strength in self.applied:
            k, v = (x.to(q.device, q.dtype).expand(q.shape[0], -1, -1) for x in (k, v))
            added = _attend(q, k, v, options, heads, None, chunks) * strength
            for chunk, rows in zip(chunks, added.chunk(len(chunks))):
                out[chunk] = out[chunk] + rows
        return torch.cat(out)


class _AddPose:
    """input_block_patch: adds the pose features to the first convolution's output, in all chunks."""

    def __init__(self, poses: list[AppliedPose], cache: dict):
        self.poses = poses
        self.cache = cache

    def __call__(self, h, options):
        if options["block"] != ("input", 0):
            return h
        chunks = options.get(KEY + "_chunks")
        uuids = options.get("uuids", [None])
        out = []
        for uuid, rows in zip(uuids, h.chunk(len(uuids))):
            area = chunks.areas.get(uuid) if chunks else None
            for applied in self.poses:
                features = self.features(applied, rows, chunks.grid if area else tuple(rows.shape[2:]))
                if area:
                    y, x = area[2:]
                    features = features[:, :, y:y + rows.shape[2], x:x + rows.shape[3]]
                rows = rows + comfy.utils.repeat_to_batch_size(features, rows.shape[0]).to(rows.dtype) * applied.strength
            out.append(rows)
        return torch.cat(out)

    def features(self, applied: AppliedPose, h: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
        key = (applied, grid, h.device)
        if key not in self.cache:
            self.cache[key] = encode_pose(applied.guider.model, applied.image, grid, h.device)
        return self.cache[key]


def _select_chunks(x: torch.Tensor, chunks: list[int], count: int) -> torch.Tensor:
    if len(chunks) == count:
        return x
    rows = x.chunk(count)
    return torch.cat([rows[chunk] for chunk in chunks])
