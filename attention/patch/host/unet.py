"""Where the blocks of the host's U-Net are, and what tells U-Nets apart."""

from __future__ import annotations

from typing import NamedTuple

import comfy.utils
import torch.nn as nn
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, Upsample
from comfy.model_patcher import ModelPatcher

from ...bank import BlockAddress


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


def block_depths(unet: nn.Module) -> dict[BlockAddress, int]:
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


def heads_of(model: ModelPatcher) -> dict[BlockAddress, int]:
    """Heads of each self-attention of this MODEL as it is patched. raises: ValueError as `projections`"""
    return {
        address: projections(model.get_model_object(f"diffusion_model.{path}.attn1"), address).heads
        for address, path in _block_paths(require_unet(model)).items()
    }


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


def input_channels(unet: nn.Module) -> int:
    """Of the first convolution's input: more than the latent has where a model asks for more, as for inpainting."""
    return unet.in_channels


def first_width(unet: nn.Module) -> int:
    """Channels of the first convolution's output."""
    return unet.input_blocks[0][0].weight.shape[0]


def context_channels(model: ModelPatcher) -> int:
    """Channels of the text that the first cross-attention takes, also of a U-Net that lacks the last one."""
    block = next(iter(transformer_blocks(model.model.diffusion_model).values()))
    return block.attn2.to_k.weight.shape[1]


def drop_after_last_norm1(unet: nn.Module):
    """Removes the layers that a reference U-Net has no use for, so that no weights are missed."""
    address, block = list(transformer_blocks(unet).items())[-1]
    block.attn1 = block.attn2 = block.norm2 = block.norm3 = block.ff = None
    transformer = next(layer for layer in unet.output_blocks[address.number] if hasattr(layer, "transformer_blocks"))
    transformer.proj_out = unet.out = None


def trained_size(model: ModelPatcher) -> tuple[int, int] | None:
    """Width and height in pixels of the only pictures that a small model was trained with; None where any size will do, or where
    the checkpoint does not tell."""
    # Not by getattr: the host's configurations have every name, and log a warning for those that they do not.
    return vars(model.model.model_config).get("trained_size")


def pixels_per_latent(model: ModelPatcher) -> int:
    """Of a picture's side, for each position of its latent. Hosts before 0.20.1 do not tell: a U-Net's latents have 8."""
    return getattr(model.model.latent_format, "spacial_downscale_ratio", 8)


def _written(address: BlockAddress) -> str:
    return f"{address.name} {address.number}, {address.index}"
