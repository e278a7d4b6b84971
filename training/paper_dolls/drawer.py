"""Draws the evaluation's pictures with a checkpoint, through the ComfyUI nodes."""

from __future__ import annotations

import numpy as np
import torch
from harness.host import call_node

from ..dataset import ReferencePicture
from .figure import random_wear
from .measure import change, seen
from .pairs import Pair
from .rows import CONDITIONS, HELD_OUT_SEED, Condition, labels_of

STEPS, GUIDANCE = 20, 2.0
# Keeps this random stream apart from those of the figures.
SWAP = 2000
NO_LABEL = "part"


class Drawer:
    """Draws pictures with a checkpoint's nodes."""

    def __init__(self, checkpoint: str):
        names = ("model", "clip", "vae", "clip_vision", "appearance_encoder", "pose_guider", "image_attention")
        self.loaded = dict(zip(names, call_node("Parts2WholeLoader", checkpoint=checkpoint)))

    def draw(self, pair: Pair, references: list[ReferencePicture], condition: Condition, seed: int) -> np.ndarray:
        """[H, W, 3] uint8"""
        call, loaded, width, height = call_node, self.loaded, pair.view.width, pair.view.height
        (model,) = call("Parts2WholeApplyPose", model=loaded["model"], pose_guider=loaded["pose_guider"], image=_image(pair.pose),
                        strength=1.0, start_percent=0.0, end_percent=1.0)
        if references and (condition.parts or condition.images):
            parts = {
                f"part{i}": call(
                    "Parts2WholeMakePart", image=_image(reference.image), label=reference.label if condition.labels else NO_LABEL,
                    mask=_image(reference.mask) if condition.masks else torch.ones(1, height, width),
                )[0]
                for i, reference in enumerate(references)
            }
            (labelled,) = call("Parts2WholeEncodeLabels", clip=loaded["clip"], parts=parts)
            if condition.images:
                (model,) = call("Parts2WholeApplyImageAttention", model=model, image_attention=loaded["image_attention"],
                                clip_vision=loaded["clip_vision"], parts=labelled, strength=1.0)
            if condition.parts:
                (appearance,) = call("Parts2WholeEncodeAppearance", appearance_encoder=loaded["appearance_encoder"],
                                     vae=loaded["vae"], parts=labelled, width=width, height=height)
                (model,) = call("Parts2WholeApply", model=model, appearance=appearance, mask_mode=condition.mask_mode, strength=1.0,
                                start_percent=0.0, end_percent=1.0)
        (positive,), (negative,) = (call("CLIPTextEncode", clip=loaded["clip"], text=text) for text in (pair.doll.caption, ""))
        (sigmas,) = call("Parts2WholeSigmas", model=model, steps=STEPS, denoise=1.0)
        (sampler,) = call("KSamplerSelect", sampler_name="ddim")
        (empty,) = call("EmptyLatentImage", width=width, height=height, batch_size=1)
        latent, _ = call("SamplerCustom", model=model, add_noise=True, noise_seed=seed, cfg=GUIDANCE, positive=positive,
                         negative=negative, sampler=sampler, sigmas=sigmas, latent_image=empty)
        (picture,) = call("VAEDecode", vae=loaded["vae"], samples=latent)
        return _pixels(picture)

    def through_vae(self, image: np.ndarray) -> np.ndarray:
        (latent,) = call_node("VAEEncode", vae=self.loaded["vae"], pixels=_image(image))
        return _pixels(call_node("VAEDecode", vae=self.loaded["vae"], samples=latent)[0])


def swap_locality(drawer: Drawer, pairs: list[Pair]) -> float:
    """How much more a part's own region changes than the rest of the figure, when its reference is swapped.

    The other part has the same shape, so that the regions are the same. A ratio of mean CIEDE2000, over all figures.
    """
    own, rest = [], []
    (condition,) = (each for each in CONDITIONS if each.name == "3 references")
    for i, pair in enumerate(pairs):
        labels = labels_of(pair, 3)
        swapped = labels[i % len(labels)]
        rng = np.random.default_rng([SWAP, HELD_OUT_SEED, i])
        other = pair.with_wear(swapped, random_wear(rng, swapped, pair.doll.background, pair.doll.wears[swapped].shape))
        before, after = (
            drawer.draw(pair, [p.reference(label) if label == swapped else pair.reference(label) for label in labels], condition, i)
            for p in (pair, other)
        )
        true = pair.drawing
        region = true.regions[swapped]
        # Arms and legs have the face's colour: what is to change with the part is not the rest.
        same = (true.image == other.drawing.image).all(-1)
        own.append(change(before, after, seen(region)))
        rest.append(change(before, after, seen(true.figure - region) & same))
    return float(np.mean(own) / np.mean(rest))


def _image(image) -> torch.Tensor:
    """A picture or a mask as the host has it: [1, H, W, 3] or [1, H, W] in 0..1"""
    return torch.from_numpy(np.array(image).astype(np.float32) / 255)[None]


def _pixels(picture: torch.Tensor) -> np.ndarray:
    return (picture[0].clamp(0, 1) * 255).round().byte().cpu().numpy()
