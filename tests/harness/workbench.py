"""Runs nodes as the host's executor does, and builds what most tests need."""

from __future__ import annotations

import comfy.model_management
import comfy.model_patcher
import comfy.sd
import comfy.supported_models
import numpy as np
import torch
from harness.host import GOLDEN, call_node
from PIL import Image
from safetensors.torch import load_file

LATENT_SCALE = 0.18215


def run(node_id: str, **inputs):
    """Executes a node and returns its outputs: the value itself where there is one only."""
    outputs = call_node(node_id, **inputs)
    return outputs[0] if len(outputs) == 1 else outputs


def golden(file: str) -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / f"{file}.safetensors")


def rel(a: torch.Tensor, b: torch.Tensor) -> float:
    """||a - b|| / ||b||"""
    assert a.shape == b.shape, f"{list(a.shape)} != {list(b.shape)}"
    return float((a.double() - b.double()).norm() / b.double().norm())


def picture(name: str) -> torch.Tensor:
    """[1, H, W, C] in 0..1, or [1, H, W] for one channel."""
    return torch.from_numpy(np.asarray(Image.open(GOLDEN / "images" / f"{name}.png")).astype(np.float32) / 255.0)[None]


REFERENCES = (("face", "ref_0", "mask_0"), ("upper body clothes", "ref_1", "mask_1"), ("shoes", "ref_2", None))


def golden_parts(clip, count: int):
    """The first `count` references of the golden data, labelled."""
    parts = {}
    for i, (label, image, mask) in enumerate(REFERENCES[:count]):
        parts[f"part{i}"] = run(
            "Parts2WholeMakePart", image=picture(image), label=label, mask=picture(mask) if mask else None
        )
    return run("Parts2WholeEncodeLabels", clip=clip, parts=parts)


def apply_parts(model, appearance, mask_mode="zero", strength=1.0, start_percent=0.0, end_percent=1.0, **region):
    return run(
        "Parts2WholeApply", model=model, appearance=appearance, mask_mode=mask_mode, strength=strength,
        start_percent=start_percent, end_percent=end_percent, **region,
    )


def apply_pose(model, pose_guider, image=None, strength=1.0, start_percent=0.0, end_percent=1.0):
    return run(
        "Parts2WholeApplyPose", model=model, pose_guider=pose_guider, image=picture("pose") if image is None else image,
        strength=strength, start_percent=start_percent, end_percent=end_percent,
    )


def apply_image_attention(model, checkpoint, parts, strength=1.0):
    return run(
        "Parts2WholeApplyImageAttention", model=model, image_attention=checkpoint.image_attention,
        clip_vision=checkpoint.clip_vision, parts=parts, strength=strength,
    )


def text(clip, prompt: str):
    return run("CLIPTextEncode", clip=clip, text=prompt)


def noise(height=24, width=16, batch=1, seed=0) -> dict:
    """An empty LATENT with noise in it already, so that the sampler adds none."""
    return {"samples": torch.randn(batch, 4, height, width, generator=torch.Generator().manual_seed(seed)) * 10}


def sample(model, clip, latent=None, steps=2, cfg=3.5, positive=None, negative=None, sampler="euler", sigmas=None):
    """The final latents of a run through SamplerCustom."""
    output, _ = run(
        "SamplerCustom", model=model, add_noise=False, noise_seed=0, cfg=cfg,
        positive=text(clip, "a person, realistic") if positive is None else positive,
        negative=text(clip, "") if negative is None else negative,
        sampler=run("KSamplerSelect", sampler_name=sampler),
        sigmas=run("Parts2WholeSigmas", model=model, steps=steps, denoise=1.0) if sigmas is None else sigmas,
        latent_image=latent or noise(),
    )
    return output["samples"]


def encode(checkpoint, parts, width=128, height=192):
    return run(
        "Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, vae=checkpoint.vae, parts=parts,
        width=width, height=height,
    )


def random_unet(architecture: str, dtype=torch.float32, **unet_config) -> comfy.model_patcher.ModelPatcher:
    """A MODEL of one of the host's architectures at any width, with random weights.

    unet_config: the arguments of the host's U-Net, with num_heads or num_head_channels
    """
    config = getattr(comfy.supported_models, architecture)(unet_config)
    heads = {name: unet_config.get(name, -1) for name in ("num_heads", "num_head_channels")}
    config.unet_config.update(heads)
    config.set_inference_dtype(dtype, None)
    model = config.get_model({})
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.diffusion_model.named_parameters():
        if parameter.ndim > 1:
            parameter.data = (torch.randn(parameter.shape, generator=generator) / parameter[0].numel() ** 0.5).to(dtype)
        else:
            parameter.data = torch.full(parameter.shape, float(name.endswith("weight")), dtype=dtype)
    device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=device)


def lora(model, scale=0.3):
    """A random LoRA on every attn1 and attn2 projection, through the host's loader."""
    weights = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(("to_k.weight", "to_v.weight", "to_q.weight")):
            key = "diffusion_model." + name.removesuffix(".weight")
            generator = torch.Generator().manual_seed(len(weights))
            weights[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 4, generator=generator) * scale
            weights[f"{key}.lora_down.weight"] = torch.randn(4, weight.shape[1], generator=generator) * scale
    return weights


def with_lora(model, strength=1.0):
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora(model), strength, 0.0)
    assert len(patched.patches) == 96
    return patched
