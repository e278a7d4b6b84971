"""Addresses of the transformer blocks in ComfyUI's U-Net, and their names in diffusers' files."""

from __future__ import annotations

import comfy.utils
from comfy.ldm.modules.attention import BasicTransformerBlock, SpatialTransformer
from comfy.ldm.modules.diffusionmodules.openaimodel import Downsample, UNetModel, Upsample
from comfy.model_patcher import ModelPatcher

from ..bank import BlockAddress


def require_unet(model: ModelPatcher) -> UNetModel:
    """The U-Net of a MODEL. raises: ValueError for a model that has none, such as Flux or SD3."""
    unet = model.model.diffusion_model
    if not isinstance(unet, UNetModel):
        raise ValueError(
            f"The MODEL is a {type(unet).__name__}, which has no U-Net self-attention to share. Expected a U-Net model: "
            "SD1.5, SD2.x, SDXL or the one from Load Parts2Whole."
        )
    return unet


def transformer_blocks(unet: UNetModel) -> dict[BlockAddress, BasicTransformerBlock]:
    """All transformer blocks of a U-Net, in the order of its forward pass."""
    stages = [("input", i, stage) for i, stage in enumerate(unet.input_blocks)]
    stages += [("middle", 0, unet.middle_block)]
    stages += [("output", i, stage) for i, stage in enumerate(unet.output_blocks)]
    return {
        BlockAddress(name, number, index): block
        for name, number, stage in stages
        for layer in stage
        if isinstance(layer, SpatialTransformer)
        for index, block in enumerate(layer.transformer_blocks)
    }


def block_levels(unet: UNetModel) -> dict[BlockAddress, int]:
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
