"""What the nodes make of a figure, to be compared with what training makes of it."""

import numpy as np
import torch
from harness.workbench import apply_image_attention, apply_parts, apply_pose, run, sample, text

from training.paper_dolls.pairs import Pair


def sampled_by_nodes(checkpoint, pair: Pair, noise: torch.Tensor, steps: int, scaling_factor: float) -> torch.Tensor:
    """Final latents as diffusers scales them, with all references, pose and image tokens, at cfg 2. noise: [1, 4, H/8, W/8]"""
    size = {"width": pair.view.width, "height": pair.view.height}
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={
        f"part{i}": run("Parts2WholeMakePart", image=image(r.image), label=r.label, mask=image(r.mask))
        for i, r in enumerate(pair.reference(label) for label in pair.doll.wears)
    })
    appearance = run(
        "Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, vae=checkpoint.vae, parts=parts, **size
    )
    patched = apply_pose(apply_parts(checkpoint.model, appearance), checkpoint.pose_guider, image(pair.pose))
    patched = apply_image_attention(patched, checkpoint, parts)
    sigmas = run("Parts2WholeSigmas", model=patched, steps=steps, denoise=1.0)
    latents = sample(
        patched, checkpoint.clip, {"samples": noise * (1 + sigmas[0] ** 2) ** 0.5 / scaling_factor}, sampler="ddim", cfg=2.0,
        sigmas=sigmas, positive=text(checkpoint.clip, pair.doll.caption),
    )
    return latents * scaling_factor / (1 + sigmas[-1] ** 2) ** 0.5


def image(picture) -> torch.Tensor:
    """A picture or a mask as the host has it: [1, H, W, 3] or [1, H, W] in 0..1"""
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255)[None]
