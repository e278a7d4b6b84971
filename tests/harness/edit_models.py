"""Edit models of the host at toy width, with random weights, and what is sampled with them."""

from __future__ import annotations

import inspect

import comfy.model_management
import comfy.model_patcher
import comfy.supported_models
import torch
from harness.workbench import run
from parts2whole.attention.edit.references import add_references

FLUX = {
    "image_model": "flux", "in_channels": 16, "out_channels": 16, "patch_size": 2, "vec_in_dim": 8, "context_in_dim": 12,
    "hidden_size": 32, "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 6, 6],
    "theta": 10000, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
}
HEADS = {"attention_head_dim": 16, "num_attention_heads": 2, "joint_attention_dim": 12, "axes_dims_rope": (4, 6, 6)}
# The host's name of each architecture, its configuration, and the shape of a latent's one position.
KINDS = {
    "flux": ("Flux", FLUX, (16,)),
    "flux2": (
        "Flux2", FLUX | {
            "image_model": "flux2", "in_channels": 128, "out_channels": 128, "patch_size": 1, "vec_in_dim": None,
            "axes_dim": [4] * 4, "theta": 2000, "qkv_bias": False, "txt_ids_dims": [3], "global_modulation": True,
            "mlp_silu_act": True, "ops_bias": False, "default_ref_method": "index", "ref_index_scale": 10.0,
        }, (128,)
    ),
    "qwen": ("QwenImage", {"image_model": "qwen_image", "in_channels": 64, "num_layers": 2, **HEADS}, (16, 1)),
    "krea2": (
        "Krea2", {
            "image_model": "krea2", "features": 64, "tdim": 16, "txtdim": 8, "heads": 4, "kvheads": 2, "multiplier": 1, "layers": 2,
            "txtlayers": 2, "txtheads": 2, "txtkvheads": 2, "default_ref_method": "index",
        }, (16, 1)
    ),
    "mage": ("MageFlow", {"image_model": "mage_flow", "num_layers": 2, **HEADS}, (128,)),
}
TEXT = {"krea2": 16}  # channels of the text; 12 else


def edit_model(kind: str, dtype=torch.float32, **config) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of one of KINDS. config: replaces what is there"""
    name, unet_config, _ = KINDS[kind]
    return build(name, unet_config | config, dtype)


def build(name: str, unet_config: dict, dtype=torch.float32) -> comfy.model_patcher.ModelPatcher:
    """name: of one of the host's architectures"""
    config = getattr(comfy.supported_models, name)(unet_config)
    config.set_inference_dtype(dtype, torch.float32 if dtype.itemsize == 1 else None)
    model = config.get_model({})
    randomise(model.diffusion_model, dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def randomise(network: torch.nn.Module, dtype=torch.float32):
    """The host builds networks without weights."""
    generator = torch.Generator().manual_seed(0)
    for parameter in network.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        parameter.data = (torch.randn(parameter.shape, generator=generator) * scale).to(dtype)


def exists(kind: str) -> bool:
    """Whether this ComfyUI has the model"""
    return hasattr(comfy.supported_models, KINDS[kind][0])


def supported(kind: str) -> bool:
    """Whether this ComfyUI has the model, and lets a patch see its tokens"""
    return exists(kind) and "post_input" in inspect.getsource(inspect.getmodule(type(edit_model(kind).model.diffusion_model)))


def some_latent(kind: str, height: int, width: int, seed: int, batch: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, *KINDS[kind][2], height, width, generator=generator)


def prompt(kind: str, seed: int = 0, length: int = 5) -> list:
    """A CONDITIONING without references"""
    generator = torch.Generator().manual_seed(100 + seed)
    text = torch.randn(1, length, TEXT.get(kind, 12), generator=generator)
    return [[text, {"pooled_output": torch.randn(1, 8, generator=generator)}]]


def whole(conditioning: list, *latents: torch.Tensor) -> list:
    """The same with references of the host's own node"""
    for latent in latents:
        conditioning = run("ReferenceLatent", conditioning=conditioning, latent={"samples": latent})
    return conditioning


def draw(model, kind: str, positive, negative=None, size=(6, 4), batch=1, steps=2, cfg=3.0, seed=0, channels=None) -> torch.Tensor:
    """The final latents of a run through KSampler"""
    latent = {"samples": some_latent(kind, *size, seed=900, batch=batch)[:, :channels]}
    return run(
        "KSampler", model=model, seed=seed, steps=steps, cfg=cfg, sampler_name="euler", scheduler="simple", positive=positive,
        negative=prompt(kind, 1) if negative is None else negative, latent_image=latent, denoise=1.0,
    )["samples"]


def draw_custom(model, kind: str, positive, size=(6, 4), batch=1, steps=2, seed=0) -> torch.Tensor:
    """The same through SamplerCustomAdvanced, without guidance"""
    return run(
        "SamplerCustomAdvanced", noise=run("RandomNoise", noise_seed=seed),
        guider=run("BasicGuider", model=model, conditioning=positive), sampler=run("KSamplerSelect", sampler_name="euler"),
        sigmas=run("BasicScheduler", model=model, scheduler="simple", steps=steps, denoise=1.0),
        latent_image={"samples": some_latent(kind, *size, seed=900, batch=batch)},
    )[0]["samples"]


def references(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Two latents, of 6x8 and 4x4"""
    return some_latent(kind, 6, 8, 1), some_latent(kind, 4, 4, 2)


def mask(height: int, width: int, rows: int) -> torch.Tensor:
    """Shows the last so many rows of a latent."""
    return torch.arange(height)[:, None].expand(height, width) >= height - rows


def with_parts(conditioning: list, latents, masks, strength=1.0, region=None) -> list:
    return add_references(conditioning, [(f"part {i}", *each) for i, each in enumerate(zip(latents, masks))], strength, region)
