"""One training step of Parts2Whole: both U-Nets, the pose guider and the image attention on a batch of pictures."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import AutoencoderKL

from attention.image_attention import MAX_IMAGE_TOKENS

from .config import TrainConfig
from .hints import LOSSES, LayerHints, Readouts, Truth
from .networks import Networks, tokenize
from .processors import Banks, References, token_grids


class Batch(NamedTuple):
    """B pictures to draw and their R references, all at one size H x W.

    latents: [B, 4, H/8, W/8], scaled, or pictures that `encode_batch` makes such; captions: [B, 77] token ids
    poses: [B, 3, H, W] in 0..1; has_pose: [B] bool
    reference_latents: [R, 4, H/8, W/8], scaled; labels: [R, 77] token ids; masks: [R, H, W] in 0..1
    images: [R, 3, S, S], as the image encoder takes them; of: for each picture the numbers of its references
    regions: [R, H/8, W/8] in 0..1, where in its picture each reference's part is to be; [0] where nobody knows
    shown: [R, H/8, W/8] in 0..1, how much of its pattern's colour each reference shows at each place; [0] where nobody knows
    amounts: [B, K, H/8, W/8] in 0..1, how much of each kind of pattern each place would show; [0] where nobody knows
    kinds, colours: [R] and [R, 6], of each part, see `training.hints.Truth`
    details: [B, H/8, W/8] in 0..1, where small things are that count more; [0] where nobody knows
    """

    latents: torch.Tensor
    captions: torch.Tensor
    poses: torch.Tensor
    has_pose: torch.Tensor
    reference_latents: torch.Tensor
    labels: torch.Tensor
    masks: torch.Tensor
    images: torch.Tensor
    regions: torch.Tensor
    shown: torch.Tensor
    amounts: torch.Tensor
    kinds: torch.Tensor
    colours: torch.Tensor
    details: torch.Tensor
    of: tuple[tuple[int, ...], ...]


class Parts2Whole(nn.Module):
    """The networks that are trained, and the readouts of the hints.

    forward: the loss of one batch (section 3.5), so that one wrapper serves all of them on several GPUs.
    """

    def __init__(self, networks: Networks, config: TrainConfig):
        super().__init__()
        self.unet, self.reference_unet, self.pose_guider = networks.unet, networks.reference_unet, networks.pose_guider
        self.text_encoder, self.image_encoder = networks.text_encoder, networks.image_encoder
        self.scheduler, self.config = networks.scheduler, config
        self.text_encoder.requires_grad_(config.train_text_encoder)
        self.image_encoder.requires_grad_(config.train_image_encoder)
        torch.manual_seed(config.loop.seed)
        self.readouts = Readouts(networks.unet, config.patterns, config.kinds, config.colours) if config.hints else None
        # What a caption that is left out gives way to: zeros as in the release, or the embedding of the empty text.
        self.empty_tokens = tokenize(networks.tokenizer, [""]) if config.dropout.empty_caption else None

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        device = self.unet.device
        batch = Batch(*(x.to(device) if isinstance(x, torch.Tensor) else x for x in batch))
        pictures, noises, dropout = len(batch.latents), self.config.noises, self.config.dropout

        def chance(probability: float) -> list[bool]:
            return (torch.rand(pictures, generator=generator) < probability).tolist()

        # What is left out of each picture.
        nothing = chance(dropout.everything)
        no_caption = [a or b for a, b in zip(nothing, chance(dropout.caption_and_images))]
        no_pose = chance(dropout.pose)
        no_reference = [a or b for a, b in zip(nothing, chance(dropout.all_references))]
        kept = torch.rand(len(batch.masks), generator=generator) >= dropout.each_reference
        of = [[r for r in own if kept[r] and not no_reference[i]] for i, own in enumerate(batch.of)]

        # The encoder sees those references that are left.
        left = [r for own in of for r in own]
        place = {r: i for i, r in enumerate(left)}
        references = hints = None
        if left:
            of_left = tuple(tuple(place[r] for r in own) for own in of)
            if self.readouts:
                truth = Truth(
                    batch.latents, batch.reference_latents[left], batch.masks[left], batch.regions[left], batch.shown[left],
                    batch.amounts,
                    batch.kinds[left], batch.colours[left], of_left,
                )
                hints = LayerHints(self.readouts, truth)
            references = References(
                self.encode_references(batch.reference_latents[left], batch.labels[left]), batch.masks[left], of_left,
                token_grids(self.unet, *batch.latents.shape[-2:]), hints,
            )
        text = self.embed_text(batch.captions)
        if any(no_caption):
            instead = self.empty_text() if self.empty_tokens is not None else torch.zeros_like(text[:1])
            text = torch.where(torch.tensor(no_caption, device=device)[:, None, None], instead, text)
        images = self.embed_images(batch.images, of if dropout.with_images else batch.of, no_caption)
        pose = self.pose_guider(batch.poses)
        if hints:
            hints.read_block("pose", pose)
        pose = pose * (batch.has_pose & ~torch.tensor(no_pose, device=device))[:, None, None, None]

        # Each picture with several noises, one after another.
        latents, text, images, pose = (x.repeat_interleave(noises, 0) for x in (batch.latents, text, images, pose))
        noise = torch.randn(latents.shape, generator=generator).to(device)
        # The noises of a picture lie in equal parts of the schedule: what they teach varies less from step to step.
        total = self.scheduler.config.num_train_timesteps
        parts = (torch.arange(noises).repeat(pictures) + torch.rand(len(latents), generator=generator)) / noises
        timesteps = (parts * total).long().clamp(max=total - 1).to(device)
        noisy = self.scheduler.add_noise(latents, noise, timesteps)
        velocity = self.scheduler.config.prediction_type == "v_prediction"
        target = self.scheduler.get_velocity(latents, noise, timesteps) if velocity else noise
        prediction = self.denoise(noisy, timesteps, text, images, pose, references)
        errors = (prediction.float() - target.float()) ** 2
        if self.config.region_weight or self.config.detail_weight:
            covered = torch.stack([batch.regions[list(own)].sum(0) for own in batch.of]).clamp(max=1)
            weights = 1 + self.config.region_weight * covered
            if self.config.detail_weight:
                weights = weights + self.config.detail_weight * batch.details
            weights = weights.repeat_interleave(noises, 0)[:, None]
            errors = errors * weights / weights.mean()
        losses = {"noise": errors.mean()}
        losses["loss"] = losses["noise"]
        if self.readouts:
            # The same names in every step and process, also where all references were left out.
            told = hints.close() if hints else dict.fromkeys(LOSSES, torch.zeros((), device=device))
            losses |= told
            losses["loss"] = losses["noise"] + self.config.hints * sum(told.values())
        return losses

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, images: torch.Tensor | None,
        pose: torch.Tensor | None, references: References | None,
    ) -> torch.Tensor:
        """The U-Net's prediction. latents: [B * N, 4, h, w], each picture of references.of N times in a row"""
        unet, hints = self.unet, references and references.hints
        with ExitStack() as hooks:
            if pose is not None:
                hook = unet.conv_in.register_forward_hook(lambda module, inputs, output: output + pose)
                hooks.callback(hook.remove)
            for i, block in enumerate(unet.up_blocks if hints else ()):
                hook = block.register_forward_hook(lambda module, inputs, output, name=f"up{i}": hints.read_block(name, output))
                hooks.callback(hook.remove)
            return unet(
                latents, timesteps, text, cross_attention_kwargs={"references": references, "image_tokens": images}
            ).sample

    def encode_references(self, latents: torch.Tensor, labels: torch.Tensor) -> Banks:
        """norm1 of every self-attention layer (section 3.2). latents: [R, 4, h, w]; labels: [R, 77] token ids"""
        banks = {}
        unique, which = labels.unique(dim=0, return_inverse=True)
        text = self.embed_text(unique)[which]
        self.reference_unet(latents, 0, text, cross_attention_kwargs={"banks": banks})
        return banks

    def embed_text(self, tokens: torch.Tensor) -> torch.Tensor:
        """[B, 77] token ids -> [B, 77, D], after the final layer norm"""
        return self.text_encoder(tokens).last_hidden_state

    def empty_text(self) -> torch.Tensor:
        return self.embed_text(self.empty_tokens.to(self.unet.device))

    def embed_images(self, images: torch.Tensor, of: tuple[tuple[int, ...], ...], without: list[bool]) -> torch.Tensor:
        """Six image tokens for each picture, zero where there are fewer. [B, 6, D]"""
        tokens = torch.zeros(len(of), MAX_IMAGE_TOKENS, self.unet.config.cross_attention_dim, device=self.unet.device)
        if len(images):
            embedded = self.image_encoder(images).image_embeds
            rows = [
                embedded.new_zeros(MAX_IMAGE_TOKENS, embedded.shape[-1]) if skip
                else F.pad(embedded[list(own[:MAX_IMAGE_TOKENS])], (0, 0, 0, MAX_IMAGE_TOKENS - len(own[:MAX_IMAGE_TOKENS])))
                for own, skip in zip(of, without)
            ]
            tokens = torch.stack(rows)
        return tokens


@torch.no_grad()
def encode_pictures(vae, pictures: torch.Tensor) -> torch.Tensor:
    """The mean of the posterior, scaled. [B, 3, H, W] uint8 -> [B, 4, H/8, W/8]"""
    latents = [vae.encode(part.to(vae.dtype) / 127.5 - 1).latent_dist.mean for part in pictures.split(8)]
    # In single precision, also under autocast: the noise schedule takes the latents' precision.
    return torch.cat(latents).float() * vae.config.scaling_factor


def encode_batch(vae: AutoencoderKL, batch: Batch) -> Batch:
    """Pictures in place of latents, as a batch has them where they were not encoded before, become latents."""
    if batch.latents.dtype != torch.uint8:
        return batch
    return batch._replace(
        latents=encode_pictures(vae, batch.latents.to(vae.device)),
        reference_latents=encode_pictures(vae, batch.reference_latents.to(vae.device)),
    )
