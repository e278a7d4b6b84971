"""What is read of ComfyUI beyond its public API. All of it is in 0.16.3 to 0.30.0, but for what says otherwise."""

from __future__ import annotations

from typing import Any, NamedTuple

import comfy.utils
import torch
import torch.nn as nn
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from comfy.model_patcher import ModelPatcher
from comfy_execution.utils import get_executing_context

from ..bank import BlockAddress


class Carried:
    """What travels in a model's options. Some nodes deep-copy those in every step: it copies as itself."""

    def __copy__(self):
        return self

    def __deepcopy__(self, memo):
        return self


# The U-Net


def require_unet(model: ModelPatcher) -> nn.Module:
    """The U-Net of a MODEL, told by what it has: other nodes put classes of their own in its place.

    raises: ValueError for a model that has none, such as Flux or SD3
    """
    unet = model.model.diffusion_model
    if all(hasattr(unet, name) for name in ("input_blocks", "middle_block", "output_blocks")):
        blocks = transformer_blocks(unet).values()
        if blocks and all(hasattr(block, "attn1") and hasattr(block, "attn2") for block in blocks):
            return unet
    raise ValueError(
        f"The MODEL is a {type(unet).__name__}, which has no U-Net self-attention to share. Expected a U-Net model: SD1.5, SD2.x, "
        "SDXL or the one from Load Parts2Whole; if it is one of these, remove the node that replaces its U-Net."
    )


def _stages(unet: nn.Module) -> list[tuple[str, int, str, nn.Module]]:
    """(block name, block number, path in the U-Net, layers) in the order of the forward pass"""
    inputs, outputs = (
        [(name, i, f"{name}_blocks.{i}", stage) for i, stage in enumerate(getattr(unet, f"{name}_blocks"))]
        for name in ("input", "output")
    )
    return [*inputs, ("middle", 0, "middle_block", unet.middle_block), *outputs]


def _block_paths(unet: nn.Module) -> dict[BlockAddress, str]:
    return {
        BlockAddress(name, number, index): f"{path}.{i}.transformer_blocks.{index}"
        for name, number, path, stage in _stages(unet)
        for i, layer in enumerate(stage or ())
        for index in range(len(getattr(layer, "transformer_blocks", ())))
    }


def transformer_blocks(unet: nn.Module) -> dict[BlockAddress, nn.Module]:
    """All transformer blocks of a U-Net, in the order of its forward pass."""
    return {address: unet.get_submodule(path) for address, path in _block_paths(unet).items()}


def block_levels(unet: nn.Module) -> dict[BlockAddress, int]:
    """How often the latent was halved at each transformer block: 0 to 3 in SD1.5."""
    halved = [any(isinstance(layer, Downsample) for layer in stage) for stage in unet.input_blocks]
    doubled = [any(isinstance(layer, Upsample) for layer in stage) for stage in unet.output_blocks]
    deepest = sum(halved)
    before = {
        "input": [sum(halved[:i]) for i in range(len(halved))],
        "middle": [deepest],
        "output": [deepest - sum(doubled[:i]) for i in range(len(doubled))],
    }
    return {address: before[address.name][address.number] for address in transformer_blocks(unet)}


def diffusers_block_names(unet_config: dict) -> dict[str, BlockAddress]:
    """Names of the transformer blocks in a diffusers file, such as `mid_block.attentions.0.transformer_blocks.0`.

    unet_config: the arguments that the host's U-Net was built with
    """
    names = {}
    for diffusers_key, key in comfy.utils.unet_to_diffusers(unet_config).items():
        block, found, _ = diffusers_key.partition(".attn1.to_k.weight")
        if found:
            stage, *rest = key.split(".")
            name = stage.removesuffix("_blocks").removesuffix("_block")
            number = 0 if name == "middle" else int(rest[0])
            index = int(key.split(".transformer_blocks.")[1].split(".")[0])
            names[block] = BlockAddress(name, number, index)
    return names


class Projections(NamedTuple):
    """What shared attention needs of an attention layer."""

    to_k: nn.Module
    to_v: nn.Module
    heads: int


def projections(attention: nn.Module, address: BlockAddress) -> Projections:
    """raises: ValueError for an attention layer of another node's that has no such projections"""
    try:
        return Projections(attention.to_k, attention.to_v, attention.heads)
    except AttributeError:
        raise ValueError(
            f"The attention of block {_written(address)} is a {type(attention).__name__} without to_k, to_v and heads, so parts "
            "cannot be brought to it: remove the node that replaces or fuses the MODEL's attention layers."
        ) from None


class Architecture(NamedTuple):
    """What tells U-Nets apart: the width of each self-attention, and that of the text."""

    widths: dict[BlockAddress, int]
    context_channels: int

    def __str__(self) -> str:
        distinct = ", ".join(str(width) for width in sorted(set(self.widths.values())))
        return f"{len(self.widths)} transformer blocks of widths {distinct} and a text of width {self.context_channels}"


def architecture(model: ModelPatcher) -> Architecture:
    """Of this MODEL as it is patched, whichever of its clones is loaded at the moment.

    raises: ValueError for a model without U-Net, and for one whose attention another node has replaced
    """
    paths = _block_paths(require_unet(model))
    widths, context_channels = {}, 0
    for address, path in paths.items():
        # The loaded model may wear the object patches of another clone.
        own, text = (
            projections(model.get_model_object(f"diffusion_model.{path}.{name}"), address) for name in ("attn1", "attn2")
        )
        widths[address], context_channels = own.to_k.weight.shape[0], text.to_k.weight.shape[1]
    return Architecture(widths, context_channels)


def first_width(unet: nn.Module) -> int:
    """Channels of the first convolution's output."""
    return unet.input_blocks[0][0].weight.shape[0]


def _written(address: BlockAddress) -> str:
    return f"{address.name} {address.number}, {address.index}"


# A run


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


# A call of the U-Net


class Window(NamedTuple):
    """Which part of the sampling a call is about.

    dim: 0, the latents of these numbers; 2 or 3, the rows or columns of the latent of these numbers
    total: how many there are in all
    """

    dim: int
    indices: tuple[int, ...]
    total: int


def window_of(options: dict[str, Any], dimensions: int = 4) -> Window | None:
    """The window that a call is about, by whoever tells it.

    dimensions: of the latents, whose last two are rows and columns
    """
    core = options.get("context_window")
    if core is not None:
        indices = core.get_tensor(torch.arange(core.total_frames), dim=0) if core.total_frames > 1 else torch.zeros(1)
        return Window(max(0, core.dim + 4 - dimensions), tuple(int(i) for i in indices), core.total_frames)
    # AnimateDiff-Evolved
    frames = options.get("ad_params") or {}
    if frames.get("sub_idxs") is not None:
        return Window(0, tuple(int(i) for i in frames["sub_idxs"]), frames.get("full_length") or 1 + max(frames["sub_idxs"]))
    return None


def areas_of(conds: list) -> dict:
    """(height, width, y, x) in latents by the conditioning's uuid, for area conditioning"""
    areas = {c["uuid"]: c["area"] for cond in conds for c in cond or () if "area" in c and "uuid" in c}
    # One in percent has an entry for the frames of a latent too.
    return {uuid: (*area[:len(area) // 2][-2:], *area[-2:]) for uuid, area in areas.items()}


def chunks_of(options: dict[str, Any], otherwise: list[int]) -> list[int]:
    """For each conditioning in the batch its number among those that the guider asked for. Other nodes may leave it out."""
    return options.get("cond_or_uncond", otherwise)
