"""The colours of the host's previews while a model samples: it shows latents by a linear map from their channels to red, green and
blue, and knows that of SD1.5's VAE. A checkpoint with another VAE has one of its own.
"""

from __future__ import annotations

import torch
from comfy.model_patcher import ModelPatcher
from einops import rearrange, reduce, repeat

from .configs import vae_config

SD15_WIDTHS, SD15_SCALE = [128, 256, 512, 512], 0.18215
PATCHES, SIDE = 16, 16  # squares in a row of the picture, and their pixels


def fit_preview_colours(folder: str, model: ModelPatcher, vae):
    """Fits the map to a picture of squares in random colours that the VAE encodes, always the same. The latents stay as they are.

    model: gets the map in its latent format; one with SD1.5's VAE keeps the host's
    """
    config = vae_config(folder)
    if config["block_out_channels"] == SD15_WIDTHS and config.get("scaling_factor", SD15_SCALE) == SD15_SCALE:
        return
    colours = torch.rand(PATCHES, PATCHES, 3, generator=torch.Generator().manual_seed(0))
    picture = repeat(colours, "h w rgb -> 1 (h y) (w x) rgb", y=SIDE, x=SIDE)
    latents = model.model.latent_format.process_in(vae.encode(picture)).float().cpu()
    seen = reduce(
        picture * 2 - 1, "1 (h y) (w x) rgb -> (h w) rgb", "mean", h=latents.shape[-2], w=latents.shape[-1]
    )
    channels = rearrange(latents, "1 c h w -> (h w) c")
    ones = torch.ones(len(channels), 1)
    *factors, bias = torch.linalg.lstsq(torch.cat([channels, ones], 1).double(), seen.double()).solution.float().tolist()
    form = model.model.latent_format
    form.latent_rgb_factors, form.latent_rgb_factors_bias, form.taesd_decoder_name = factors, bias, None
