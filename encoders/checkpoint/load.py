"""Builds the host's objects from a checkpoint in the release's layout. Widths, heads and schedule come from its configs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import NamedTuple

import comfy.clip_vision
import comfy.diffusers_convert
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from comfy.model_patcher import ModelPatcher

from ...attention.image_attention import ImageAttention
from ...attention.patch.host.unet import diffusers_block_names
from ..appearance import AppearanceEncoder
from ..pose_network import PoseNetwork
from .configs import (
    feature_extractor_config,
    image_attention_sizes,
    image_encoder_config,
    pose_guider_config,
    text_encoder_config,
    vae_config,
)
from .files import REFERENCE_UNET, WEIGHT_FILES, read_weights, require_complete, require_none_missing, require_shapes
from .preview_colours import fit_preview_colours
from .unet import load_appearance_encoder, load_model, unet_config

IMAGE_ATTENTION_FILES = ("decoupled_attn.safetensors", "decoupled_attn.pth")
COMPONENTS = ("unet", REFERENCE_UNET, "vae", "text_encoder", "image_encoder", "pose_guider")
WEIGHTS = {**dict.fromkeys(COMPONENTS, WEIGHT_FILES), "": IMAGE_ATTENTION_FILES}
CONFIGS = {
    **dict.fromkeys(COMPONENTS, "config.json"),
    "scheduler": "scheduler_config.json",
    "feature_extractor": "preprocessor_config.json",
}


class Checkpoint(NamedTuple):
    """Everything in a checkpoint, in the order of the loader's outputs."""

    model: ModelPatcher
    clip: comfy.sd.CLIP
    vae: comfy.sd.VAE
    clip_vision: comfy.clip_vision.ClipVisionModel
    appearance_encoder: AppearanceEncoder
    pose_guider: ModelPatcher
    image_attention: ModelPatcher


def load_checkpoint(folder: str) -> Checkpoint:
    """Loads all components, each through the host's model management.

    raises: FileNotFoundError or ValueError that names the file, what is wrong with it and what mends it
    """
    require_complete(folder, WEIGHTS, CONFIGS)
    loaders = (
        load_model, load_clip, load_vae, load_clip_vision, load_appearance_encoder, load_pose_guider, load_image_attention
    )
    progress = comfy.utils.ProgressBar(len(loaders))
    components = []
    for load in loaders:
        comfy.model_management.throw_exception_if_processing_interrupted()
        components.append(load(folder))
        progress.update(1)
    checkpoint = Checkpoint(*components)
    fit_preview_colours(folder, checkpoint.model, checkpoint.vae)
    return checkpoint


def load_clip(folder: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder, with the host's CLIP tokenizer, which has the same vocabulary."""
    weights = read_weights(folder, "text_encoder")
    config = text_encoder_config(folder, weights)
    names = ("hidden_size", "intermediate_size", "hidden_act", "num_attention_heads", "num_hidden_layers")
    # SD1.5 has no use for the text projection, and its files have none.
    weights.setdefault("text_projection.weight", torch.eye(config["hidden_size"]))
    clip = comfy.sd.CLIP(
        comfy.supported_models_base.ClipTarget(comfy.sd1_clip.SD1Tokenizer, comfy.sd1_clip.SD1ClipModel),
        embedding_directory=folder_paths.get_folder_paths("embeddings"),
        parameters=comfy.utils.calculate_parameters(weights),
        model_options={"clip_l_model_config": {name: config[name] for name in names}},
        disable_dynamic=disable_dynamic,
    )
    require_shapes(clip.cond_stage_model.clip_l.transformer, weights, folder, "text_encoder")
    missing, _ = clip.load_sd(weights)
    require_none_missing(missing, folder, "text_encoder")
    clip.patcher.cached_patcher_init = (_clip_patcher, (folder,))
    return clip


def _clip_patcher(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    return load_clip(folder, disable_dynamic).patcher


def load_vae(folder: str) -> comfy.sd.VAE:
    """The VAE, whose latents the host scales by the checkpoint's scaling_factor."""
    weights = read_weights(folder, "vae")
    config = vae_config(folder, weights)
    widths = config["block_out_channels"]
    weights = comfy.diffusers_convert.convert_vae_state_dict(weights)
    parameters = {
        "embed_dim": config["latent_channels"],
        "ddconfig": {
            "double_z": True,
            "z_channels": config["latent_channels"],
            "resolution": 256,
            "in_channels": config["in_channels"],
            "out_ch": config["out_channels"],
            "ch": widths[0],
            "ch_mult": [width // widths[0] for width in widths],
            "num_res_blocks": config["layers_per_block"],
            "attn_resolutions": [],
            "dropout": 0.0,
        },
    }
    with torch.device("meta"):  # for its shapes: the host's VAE is loaded as it is built
        require_shapes(AutoencoderKL(**parameters), weights, folder, "vae")
    vae = comfy.sd.VAE(weights, config={"params": parameters})
    require_none_missing(list(vae.first_stage_model.state_dict().keys() - weights.keys()), folder, "vae")
    vae.patcher.cached_patcher_init = (_vae_patcher, (folder,))
    return vae


def _vae_patcher(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    # The host's VAE chooses its patcher by itself, and its own factory leaves it at that too.
    return load_vae(folder).patcher


def load_clip_vision(folder: str) -> comfy.clip_vision.ClipVisionModel:
    """The image encoder, with the normalisation of the checkpoint's feature extractor."""
    extractor = feature_extractor_config(folder)
    weights = read_weights(folder, "image_encoder")
    config = {
        **image_encoder_config(folder, weights),
        "image_mean": extractor["image_mean"],
        "image_std": extractor["image_std"],
    }
    with tempfile.TemporaryDirectory() as temporary:  # ComfyUI before 0.26 takes no config but a file's
        path = Path(temporary, "config.json")
        path.write_text(json.dumps(config))
        clip_vision = comfy.clip_vision.ClipVisionModel(path)
    require_shapes(clip_vision.model, weights, folder, "image_encoder")
    missing, _ = clip_vision.load_sd(weights)
    require_none_missing(missing, folder, "image_encoder")
    return clip_vision


def load_pose_guider(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    """The pose guider, in float32: it is small."""
    weights = read_weights(folder, "pose_guider")
    config = pose_guider_config(folder, weights)
    guider = PoseNetwork(
        config["conditioning_channels"],
        config["block_out_channels"],
        config["conditioning_embedding_channels"],
        comfy.ops.manual_cast,
    )
    patcher = _patcher(guider, weights, folder, "pose_guider", disable_dynamic)
    patcher.cached_patcher_init = (load_pose_guider, (folder,))
    return patcher


def load_image_attention(folder: str) -> ModelPatcher:
    """The decoupled cross-attention, in float32: it is used once for each picture, before sampling."""
    config = unet_config(folder, "unet").unet_config
    weights = read_weights(folder, "", IMAGE_ATTENTION_FILES)
    names = diffusers_block_names(config)
    channels, token_channels = image_attention_sizes(folder, weights, names)
    attention = ImageAttention(
        dict(zip(names.values(), channels)), token_channels, config["context_dim"], comfy.ops.manual_cast
    )
    return _patcher(attention, {
        f"{layer}.{i}.weight": weights[f"{name}.attn2.processor.{layer}.weight"]
        for i, name in enumerate(names) for layer in ("to_k_dc", "to_v_dc")
    }, folder, "decoupled_attn.pth")


def _patcher(
    module: torch.nn.Module, weights: dict[str, torch.Tensor], folder: str, component: str, disable_dynamic: bool = False
) -> ModelPatcher:
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(
        module.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    require_shapes(module, weights, folder, component)
    missing, _ = module.load_state_dict(weights, strict=False, assign=patcher.is_dynamic())
    require_none_missing(missing, folder, component)
    return patcher
