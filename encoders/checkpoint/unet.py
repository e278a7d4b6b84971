"""Builds the two U-Nets of a checkpoint: the denoiser as a MODEL, and the reference U-Net as appearance encoder."""

from __future__ import annotations

import os

import comfy.latent_formats
import comfy.model_base
import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import comfy.utils
from comfy.model_patcher import ModelPatcher

from ...attention.patch.host.unet import drop_after_last_norm1
from ..appearance import AppearanceEncoder
from .configs import require_unet_fits, scheduler_config, trained_size, unet_numbers, vae_config
from .files import REFERENCE_UNET, read_config, read_weights, require_none_missing, require_shapes

# diffusers' names of noise schedules -> the host's. Its squaredcos_cap_v2 gives no tensor, which its sampling cannot take.
BETA_SCHEDULES = {"linear": "sqrt_linear", "scaled_linear": "linear"}
PREDICTION_TYPES = {"epsilon": comfy.model_base.ModelType.EPS, "v_prediction": comfy.model_base.ModelType.V_PREDICTION}


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
    config = unet_config(folder, component)
    require_unet_fits(folder, component, read_config(folder, component), weights)
    parameters, weight_dtype = comfy.utils.calculate_parameters(weights), comfy.utils.weight_dtype(weights)

    device = comfy.model_management.get_torch_device()
    dtype = comfy.model_management.unet_dtype(
        model_params=parameters, supported_dtypes=list(config.supported_inference_dtypes), weight_dtype=weight_dtype
    )
    manual_cast = comfy.model_management.unet_manual_cast(dtype, device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, manual_cast)
    model = config.get_model({})
    if component == REFERENCE_UNET:
        drop_after_last_norm1(model.diffusion_model)

    patcher_class = comfy.model_patcher.ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    offload_device = comfy.model_management.unet_offload_device()
    patcher = patcher_class(model, load_device=device, offload_device=offload_device)
    if not comfy.model_management.is_device_cpu(offload_device):
        model.to(offload_device)
    # Before it is loaded, a model of the host's dynamic memory management has no tensors to compare the file's with.
    keys = comfy.utils.unet_to_diffusers(config.unet_config)
    names = {key: name for name, key in keys.items()}
    weights = {keys[name]: weight for name, weight in weights.items() if name in keys}
    require_shapes(model.diffusion_model, weights, folder, component, names)
    missing, _ = model.diffusion_model.load_state_dict(weights, strict=False, assign=patcher.is_dynamic())
    require_none_missing([names[key] for key in missing], folder, component)
    return patcher


def unet_config(folder: str, component: str) -> comfy.supported_models.SD15:
    """The host's model configuration for a diffusers U-Net of SD1.5's architecture at any width."""
    config = unet_numbers(folder, component)
    widths = config["block_out_channels"]
    layers = config["layers_per_block"]
    if config.get("use_linear_projection") or config.get("addition_embed_type") or config.get("class_embed_type"):
        raise ValueError(f"{os.path.join(folder, component)}: expected a U-Net of SD1.5's architecture.")
    if any(width % widths[0] for width in widths):
        raise ValueError(f"{os.path.join(folder, component)}: widths {widths} are not multiples of the first.")
    # An old slip of diffusers: attention_head_dim is the number of heads.
    heads = config.get("num_attention_heads") or config.get("attention_head_dim")
    if not isinstance(heads, int) or heads < 1 or any(width % heads for width in widths):
        raise ValueError(f"{os.path.join(folder, component)}: widths {widths} are not multiples of the number of heads, {heads!r}.")
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
        self.latent_format = comfy.latent_formats.SD15(vae_config(folder).get("scaling_factor", 0.18215))
        is_small = unet_config["model_channels"] < comfy.supported_models.SD15.unet_config["model_channels"]
        self.trained_size = trained_size(folder) if is_small else None  # SD1.5 itself was trained with all sizes
        scheduler = scheduler_config(folder)
        try:
            schedule = BETA_SCHEDULES[scheduler["beta_schedule"]]
            self.prediction_type = PREDICTION_TYPES[scheduler["prediction_type"]]
        except (KeyError, TypeError) as error:
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
