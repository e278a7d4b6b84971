"""Builds the host's objects from a checkpoint in the release's layout. Widths, heads and schedule come from its configs."""

from __future__ import annotations

import logging
import os
from typing import NamedTuple

import comfy.clip_vision
import comfy.diffusers_convert
import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.ops
import comfy.sd
import comfy.sd1_clip
import comfy.supported_models
import comfy.supported_models_base
import comfy.utils
import folder_paths
import torch
from comfy.model_patcher import ModelPatcher

from ..attention.image_attention import ImageAttention
from ..attention.unet_blocks import diffusers_block_names, transformer_blocks
from .appearance_encoder import AppearanceEncoder
from .checkpoint_files import REFERENCE_UNET, read_config, read_weights, require_keys
from .pose_guider import PoseGuider

# diffusers' names of noise schedules -> the host's
BETA_SCHEDULES = {"linear": "sqrt_linear", "scaled_linear": "linear", "squaredcos_cap_v2": "squaredcos_cap_v2"}
PREDICTION_TYPES = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}


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
    loaders = (
        load_model, load_clip, load_vae, load_clip_vision, load_appearance_encoder, load_pose_guider, load_image_attention
    )
    progress = comfy.utils.ProgressBar(len(loaders))
    components = []
    for load in loaders:
        comfy.model_management.throw_exception_if_processing_interrupted()
        components.append(load(folder))
        progress.update(1)
    return Checkpoint(*components)


def load_model(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    """The denoising U-Net, as a MODEL that samples with the checkpoint's own noise schedule."""
    patcher = _load_unet(folder, "unet", disable_dynamic)
    patcher.cached_patcher_init = (load_model, (folder,))
    return patcher


def load_appearance_encoder(folder: str) -> AppearanceEncoder:
    """The reference U-Net. The release leaves out what comes after its last norm1."""
    return AppearanceEncoder(_load_unet(folder, REFERENCE_UNET))


def _load_unet(folder: str, component: str, disable_dynamic: bool = False) -> ModelPatcher:
    weights = read_weights(folder, component)
    config = _unet_config(folder, component)
    parameters, weight_dtype = comfy.utils.calculate_parameters(weights), comfy.utils.weight_dtype(weights)

    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=list(config.supported_inference_dtypes), weight_dtype=weight_dtype
    )
    manual_cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast)
    model = config.get_model({})
    if component == REFERENCE_UNET:
        _drop_after_last_norm1(model.diffusion_model)

    diffusers_keys = {key: name for name, key in comfy.utils.unet_to_diffusers(config.unet_config).items()}
    require_keys((diffusers_keys[key] for key in model.diffusion_model.state_dict()), weights, folder, component)
    weights = {key: weights[diffusers_keys[key]] for key in model.diffusion_model.state_dict()}

    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device = comfy.model_management.unet_offload_device()
    patcher = patcher_class(model, load_device=device, offload_device=offload_device)
    if not comfy.model_management.is_device_cpu(offload_device):
        model.to(offload_device)
    model.load_model_weights(weights, assign=patcher.is_dynamic())
    return patcher


def _unet_config(folder: str, component: str) -> comfy.supported_models.SD15:
    """The host's model configuration for a diffusers U-Net of SD1.5's architecture at any width."""
    config = read_config(folder, component)
    widths = config["block_out_channels"]
    layers = config["layers_per_block"]
    if config.get("use_linear_projection") or config.get("addition_embed_type") or config.get("class_embed_type"):
        raise ValueError(f"{os.path.join(folder, component)}: expected a U-Net of SD1.5's architecture.")
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{os.path.join(folder, component)}: widths {widths} are not multiples of the first.")
    # An old slip of diffusers: attention_head_dim is the number of heads.
    heads = config.get("num_attention_heads") or config["attention_head_dim"]
    depth_down = [int("CrossAttn" in block) for block in config["down_block_types"] for _ in range(layers)]
    depth_up = [int("CrossAttn" in block) for block in reversed(config["up_block_types"]) for _ in range(layers + 1)]

    return _AnyWidthSD15(
        {
            "image_size": 32,
            "in_channels": config["in_channels"],
            "out_channels": config["out_channels"],
            "model_channels": widths[0],
            "channel_mult": [width // widths[0] for width in widths],
            "num_res_blocks": [layers] * len(widths),
            "transformer_depth": depth_down,
            "transformer_depth_middle": 1,
            "transformer_depth_output": depth_up,
            "context_dim": config["cross_attention_dim"],
            "adm_in_channels": None,
            "use_spatial_transformer": True,
            "use_linear_in_transformer": False,
            "use_checkpoint": False,
            "legacy": False,
        },
        heads, folder,
    )


class _AnyWidthSD15(comfy.supported_models.SD15):
    """The host's SD1.5 at any width, with the noise schedule and the latent scale of a checkpoint."""

    def __init__(self, unet_config: dict, heads: int, folder: str):
        super().__init__(unet_config)
        self.unet_config["num_heads"] = heads
        self.latent_format = comfy.latent_formats.SD15(read_config(folder, "vae").get("scaling_factor", 0.18215))
        scheduler = read_config(folder, "scheduler", "scheduler_config.json")
        try:
            schedule = BETA_SCHEDULES[scheduler["beta_schedule"]]
            self.prediction_type = PREDICTION_TYPES[scheduler["prediction_type"]]
        except KeyError as error:
            raise ValueError(
                f"{os.path.join(folder, 'scheduler')}: {error} is not supported. Expected beta_schedule one of "
                f"{', '.join(BETA_SCHEDULES)} and prediction_type one of {', '.join(PREDICTION_TYPES)}."
            ) from None
        self.sampling_settings = {
            "beta_schedule": schedule,
            "linear_start": scheduler["beta_start"],
            "linear_end": scheduler["beta_end"],
            "timesteps": scheduler["num_train_timesteps"],
            "zsnr": scheduler.get("rescale_betas_zero_snr", False),
        }

    def model_type(self, state_dict, prefix=""):
        return self.prediction_type


def _drop_after_last_norm1(unet):
    address, block = list(transformer_blocks(unet).items())[-1]
    block.attn1 = block.attn2 = block.norm2 = block.norm3 = block.ff = None
    transformer = next(layer for layer in unet.output_blocks[address.number] if hasattr(layer, "transformer_blocks"))
    transformer.proj_out = unet.out = None


def load_clip(folder: str, disable_dynamic: bool = False) -> comfy.sd.CLIP:
    """The text encoder, with the host's CLIP tokenizer, which has the same vocabulary."""
    config = read_config(folder, "text_encoder")
    weights = read_weights(folder, "text_encoder")
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
    transformer = clip.cond_stage_model.clip_l.transformer
    require_keys(transformer.state_dict(), weights, folder, "text_encoder")
    clip.load_sd(weights)
    clip.patcher.cached_patcher_init = (_clip_patcher, (folder,))
    return clip


def _clip_patcher(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    return load_clip(folder, disable_dynamic).patcher


def load_vae(folder: str) -> comfy.sd.VAE:
    """The VAE, whose latents the host scales by the checkpoint's scaling_factor."""
    config = read_config(folder, "vae")
    widths = config["block_out_channels"]
    weights = comfy.diffusers_convert.convert_vae_state_dict(read_weights(folder, "vae"))
    vae = comfy.sd.VAE(weights, config={"params": {
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
    }})
    require_keys(vae.first_stage_model.state_dict(), weights, folder, "vae")
    vae.patcher.cached_patcher_init = (_vae_patcher, (folder,))
    return vae


def _vae_patcher(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    return load_vae(folder).patcher


def load_clip_vision(folder: str) -> comfy.clip_vision.ClipVisionModel:
    """The image encoder, with the normalisation of the checkpoint's feature extractor."""
    extractor = read_config(folder, "feature_extractor", "preprocessor_config.json")
    config = {
        **read_config(folder, "image_encoder"),
        "image_mean": extractor["image_mean"],
        "image_std": extractor["image_std"],
    }
    weights = read_weights(folder, "image_encoder")
    clip_vision = comfy.clip_vision.ClipVisionModel(config)
    require_keys(clip_vision.get_sd(), weights, folder, "image_encoder")
    clip_vision.load_sd(weights)
    return clip_vision


def load_pose_guider(folder: str, disable_dynamic: bool = False) -> ModelPatcher:
    """The pose guider, in float32: it is small."""
    config = read_config(folder, "pose_guider")
    guider = PoseGuider(
        config.get("conditioning_channels", 3),
        config["block_out_channels"],
        config["conditioning_embedding_channels"],
        comfy.ops.manual_cast,
    )
    weights = read_weights(folder, "pose_guider")
    require_keys(guider.state_dict(), weights, folder, "pose_guider")
    patcher = _patcher(guider, weights, disable_dynamic)
    patcher.cached_patcher_init = (load_pose_guider, (folder,))
    return patcher


def load_image_attention(folder: str) -> ModelPatcher:
    """The decoupled cross-attention, in float32: it is used once for each picture, before sampling."""
    unet_config = _unet_config(folder, "unet").unet_config
    weights = read_weights(folder, "", ("decoupled_attn.safetensors", "decoupled_attn.pth"))
    names = diffusers_block_names(unet_config)
    layers = ("to_k_dc", "to_v_dc")
    files = {f"{name}.attn2.processor.{layer}.weight" for name in names for layer in layers}
    require_keys(files, weights, folder, "decoupled_attn.pth")
    channels = {address: weights[f"{name}.attn2.processor.to_k_dc.weight"].shape[0] for name, address in names.items()}
    attention = ImageAttention(channels, unet_config["context_dim"], comfy.ops.manual_cast)
    return _patcher(attention, {
        f"{layer}.{i}.weight": weights[f"{name}.attn2.processor.{layer}.weight"]
        for i, name in enumerate(names) for layer in layers
    })


def _patcher(module: torch.nn.Module, weights: dict[str, torch.Tensor], disable_dynamic: bool = False) -> ModelPatcher:
    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    patcher = patcher_class(
        module.eval(),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    unused = module.load_state_dict(weights, strict=False, assign=patcher.is_dynamic()).unexpected_keys
    if unused:
        logging.info("Parts2Whole: unused weights %s", unused)
    return patcher
