"""A U-Net called by itself, with what is patched onto it: here we do what the host's sampler does else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import comfy.model_management
import comfy.sample
import torch
from comfy.model_patcher import ModelPatcher

from ...bank import BlockAddress
from .sampling import layer_of
from .unet import transformer_blocks


class _LastBlock(Exception):
    """Ends the forward pass: what comes after the last norm1 is not needed, and the release's reference U-Net lacks its weights."""


def latent_channels(patcher: ModelPatcher) -> int:
    """Channels of the latents that the model is about. Its U-Net may take more."""
    return patcher.model.latent_format.latent_channels


def takes_pooled_text(patcher: ModelPatcher) -> bool:
    return bool(patcher.model.adm_channels)


def read_norm1(
    patcher: ModelPatcher, latent: torch.Tensor, timestep: int, text: torch.Tensor, pooled: torch.Tensor | None,
    frame: tuple[int, int], keep: Callable[[BlockAddress, torch.Tensor, tuple[int, int]], None],
):
    """Calls the U-Net up to its last norm1.

    latent: [1, C, h, w] as the VAE gives it; above timestep 0 it is noised to match, always alike
    timestep: 0..999
    text: [1, S, D]; pooled: [1, P], or None for a U-Net that takes none
    frame: width and height in pixels
    keep: is given norm1 of each transformer block, [T, C], with the grid (h, w) of its tokens
    """
    model = patcher.model
    comfy.model_management.load_models_gpu([patcher], memory_required=model.memory_required(latent.shape))
    device, dtype = patcher.load_device, model.get_dtype_inference()
    last = list(transformer_blocks(model.diffusion_model))[-1]

    def attn1_patch(n, context, value, extra_options):
        address = BlockAddress(*extra_options["block"], extra_options["block_index"])
        keep(address, n[0], layer_of(extra_options).grid)
        if address == last:
            raise _LastBlock
        return n, context, value

    x = model.process_latent_in(latent).to(device)
    t = torch.tensor([float(timestep)], device=device)
    sigma = model.model_sampling.sigma(t)
    if timestep > 0:
        noise = comfy.sample.prepare_noise(latent, seed=0).to(device)
        x = model.model_sampling.calculate_input(sigma, model.model_sampling.noise_scaling(sigma, noise, x))
    width, height = frame
    y = model.encode_adm(device=device, pooled_output=pooled, width=width, height=height, noise=x)

    options = patcher.model_options["transformer_options"]
    patches = options.get("patches", {})
    options = {
        **options,
        "patches": {**patches, "attn1_patch": [attn1_patch, *patches.get("attn1_patch", [])]},
        "cond_or_uncond": [0],
        "sigmas": sigma,
    }
    with contextlib.suppress(_LastBlock):
        model.diffusion_model(
            x.to(dtype), t, context=text.to(device, dtype), y=None if y is None else y.to(device, dtype),
            transformer_options=options,
        )
