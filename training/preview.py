"""Samples pictures while training, on diffusers' scheduler."""

from __future__ import annotations

import torch

from .model import Batch, Parts2Whole, encode_batch
from .processors import References, token_grids

STEPS, GUIDANCE = 20, 2.0


@torch.no_grad()
def sample_latents(model: Parts2Whole, batch: Batch, noise: torch.Tensor, steps: int, guidance: float) -> torch.Tensor:
    """DDIM with classifier-free guidance, against what captions are left out for in training.

    batch: with scaled latents, of which only the number counts
    noise: [B, 4, h, w]; returns: the same shape
    """
    device = model.unet.device
    count = len(batch.captions)
    references = None
    if len(batch.labels):
        references = References(
            model.encode_references(batch.reference_latents.to(device), batch.labels.to(device)), batch.masks.to(device),
            batch.of, token_grids(model.unet, *noise.shape[-2:]),
        )
    text = model.embed_text(batch.captions.to(device))
    images = model.embed_images(batch.images.to(device), batch.of, [False] * count)
    pose = model.pose_guider(batch.poses.to(device)) * batch.has_pose.to(device)[:, None, None, None]
    empty = model.empty_text() if model.empty_tokens is not None else torch.zeros_like(text[:1])

    scheduler = model.scheduler
    scheduler.set_timesteps(steps)
    latents = noise.to(device)
    for timestep in scheduler.timesteps:
        conditional = model.denoise(latents, timestep, text, images, pose, references)
        unconditional = model.denoise(latents, timestep, empty.expand_as(text), torch.zeros_like(images), pose, None)
        prediction = unconditional + guidance * (conditional - unconditional)
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents


@torch.no_grad()
def preview_pictures(model: Parts2Whole, vae, batch: Batch) -> dict[str, torch.Tensor]:
    """Targets above what is sampled for them: one picture by its name, [3, H, W] in 0..1."""
    batch = encode_batch(vae, batch)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(0))
    drawn = sample_latents(model, batch, noise, STEPS, GUIDANCE)
    rows = []
    for latents in (batch.latents, drawn):
        pictures = vae.decode(latents.to(vae.device) / vae.config.scaling_factor).sample.clamp(-1, 1)
        rows.append(torch.cat(list(pictures.cpu()), -1))
    return {"targets and samples": torch.cat(rows, -2) / 2 + 0.5}
