"""All networks of Parts2Whole on diffusers and transformers: built, run for one training step, and saved as the release is."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from encoders.pose_network import PoseNetwork

from .config import TrainConfig
from .processors import Banks, References, keep_norm1, share_attention, token_grids

MAX_IMAGE_TOKENS = 6
VOCABULARY = ("vocab.json", "merges.txt")
IMAGE_ATTENTION_FILES = ("decoupled_attn.safetensors", "decoupled_attn.pth")


class Batch(NamedTuple):
    """B pictures to draw and their R references, all at one size H x W.

    latents: [B, 4, H/8, W/8], scaled, or pictures that `encode_batch` makes such; captions: [B, 77] token ids
    poses: [B, 3, H, W] in 0..1; has_pose: [B] bool
    reference_latents: [R, 4, H/8, W/8], scaled; labels: [R, 77] token ids; masks: [R, H, W] in 0..1
    images: [R, 3, S, S], as the image encoder takes them; of: for each picture the numbers of its references
    regions: [R, H/8, W/8] in 0..1, where in its picture each reference's part is to be; [0] where nobody knows
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
    of: tuple[tuple[int, ...], ...]


class Networks(NamedTuple):
    """Everything in a checkpoint. pose_config: the widths of the pose guider, as its config.json has them"""

    unet: UNet2DConditionModel
    reference_unet: UNet2DConditionModel
    pose_guider: PoseNetwork
    pose_config: dict
    vae: AutoencoderKL
    text_encoder: CLIPTextModel
    tokenizer: CLIPTokenizer
    image_encoder: CLIPVisionModelWithProjection
    image_processor: CLIPImageProcessor
    scheduler: DDIMScheduler


class Parts2Whole(nn.Module):
    """The networks that are trained, and those that train them.

    forward: the loss of one batch (section 3.5), so that one wrapper serves all of them on several GPUs.
    """

    def __init__(self, networks: Networks, config: TrainConfig):
        super().__init__()
        self.unet, self.reference_unet, self.pose_guider = networks.unet, networks.reference_unet, networks.pose_guider
        self.text_encoder, self.image_encoder = networks.text_encoder, networks.image_encoder
        self.scheduler, self.config = networks.scheduler, config
        self.text_encoder.requires_grad_(config.train_text_encoder)
        self.image_encoder.requires_grad_(config.train_image_encoder)
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
        references = None
        looking = []
        if left:
            references = References(
                self.encode_references(batch.reference_latents[left], batch.labels[left]), batch.masks[left],
                tuple(tuple(place[r] for r in own) for own in of), token_grids(self.unet, *batch.latents.shape[-2:]),
                batch.regions[left] if self.config.region_loss else None, looking,
            )
        text = self.embed_text(batch.captions)
        if any(no_caption):
            instead = self.empty_text() if self.empty_tokens is not None else torch.zeros_like(text[:1])
            text = torch.where(torch.tensor(no_caption, device=device)[:, None, None], instead, text)
        images = self.embed_images(batch.images, of if dropout.with_images else batch.of, no_caption)
        pose = self.pose_guider(batch.poses)
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
        if self.config.region_weight:
            covered = torch.stack([batch.regions[list(own)].sum(0) for own in batch.of]).clamp(max=1)
            weights = 1 + self.config.region_weight * covered.repeat_interleave(noises, 0)[:, None]
            errors = errors * weights / weights.mean()
        losses = {"noise": errors.mean()}
        losses["loss"] = losses["noise"]
        if self.config.region_loss:
            losses["region"] = torch.stack(looking).mean() if looking else torch.zeros((), device=device)
            losses["loss"] = losses["noise"] + self.config.region_loss * losses["region"]
        return losses

    def denoise(
        self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor, images: torch.Tensor | None,
        pose: torch.Tensor | None, references: References | None,
    ) -> torch.Tensor:
        """The U-Net's prediction. latents: [B * N, 4, h, w], each picture of references.of N times in a row"""
        unet = self.unet
        hook = None
        if pose is not None:
            hook = unet.conv_in.register_forward_hook(lambda module, inputs, output: output + pose)
        try:
            return unet(
                latents, timesteps, text, cross_attention_kwargs={"references": references, "image_tokens": images}
            ).sample
        finally:
            if hook:
                hook.remove()

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


def build_networks(config: TrainConfig) -> Networks:
    """Loads what `pretrained` has and builds the rest.

    The reference U-Net begins as a copy of the U-Net, so that a reference's features and the target's are alike. Of a
    checkpoint that has been trained already, its own are loaded.
    """
    folder, new = Path(config.pretrained), config.new
    torch.manual_seed(config.loop.seed)

    def load(kind: type, name: str, **kwargs):
        return kind.from_pretrained(folder, subfolder=name, **kwargs)

    vae = load(AutoencoderKL, "vae").requires_grad_(False)
    tokenizer = CLIPTokenizer.from_pretrained(new.get("tokenizer", folder / "tokenizer"))
    scheduler = DDIMScheduler(**new["scheduler"]) if "scheduler" in new else load(DDIMScheduler, "scheduler")
    text_encoder = (
        CLIPTextModel(CLIPTextConfig(**new["text_encoder"])) if "text_encoder" in new else load(CLIPTextModel, "text_encoder")
    )
    images = Path(config.image_encoder or folder)
    if "image_encoder" in new:
        image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**new["image_encoder"]))
        size = new["image_encoder"]["image_size"]
        image_processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    else:
        inside = (images / "image_encoder").is_dir()
        image_encoder = CLIPVisionModelWithProjection.from_pretrained(images, subfolder="image_encoder" if inside else "")
        image_processor = CLIPImageProcessor.from_pretrained(images, subfolder="feature_extractor" if inside else "")

    unet = UNet2DConditionModel(**new["unet"]) if "unet" in new else load(UNet2DConditionModel, "unet")
    reference_unet = copy.deepcopy(unet)
    keep_norm1(reference_unet)
    share_attention(unet)
    width = unet.config.block_out_channels[0]
    pose_config = {
        "_class_name": "PoseGuider", "conditioning_channels": 3, "conditioning_embedding_channels": width,
        "block_out_channels": list(new.get("pose_guider", {}).get("block_out_channels", (16, 32, 96, 256))),
    }
    if (folder / "pose_guider").is_dir():
        pose_config = json.loads((folder / "pose_guider" / "config.json").read_text())
    pose_guider = PoseNetwork(3, pose_config["block_out_channels"], width)
    with torch.no_grad():
        pose_guider.conv_in.weight[:, 2] *= 255 / 24  # blue is the part index 0..24, of 255: as large as the others
    if "unet" not in new:  # so that it begins by changing nothing of a trained U-Net
        nn.init.zeros_(pose_guider.conv_out.weight)
        nn.init.zeros_(pose_guider.conv_out.bias)
    if config.loop.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        reference_unet.enable_gradient_checkpointing()
    # Whatever the files' precision: mixed precision is accelerate's matter.
    networks = Networks(
        unet.float(), reference_unet.float(), pose_guider, pose_config, vae.float(), text_encoder.float(), tokenizer,
        image_encoder.float(), image_processor, scheduler,
    )
    if (folder / "reference_unet").is_dir():
        load_trained(networks, folder)
    if config.copy_unet:
        weights = networks.unet.state_dict()
        reference_unet.load_state_dict({key: weights[key] for key in reference_unet.state_dict()})
    return networks


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


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """[B, 77] token ids"""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=77, return_tensors="pt").input_ids


def save_networks(networks: Networks, folder: Path, dtype: torch.dtype):
    """Writes the networks in the layout of the release, which Load Parts2Whole reads: safetensors only."""
    for name in ("unet", "reference_unet", "vae", "text_encoder", "image_encoder"):
        network = getattr(networks, name)
        network.save_config(folder / name) if hasattr(network, "save_config") else network.config.save_pretrained(folder / name)
        _forget_origin(folder / name / "config.json")
        weights = {key: value for key, value in network.state_dict().items() if ".processor." not in key}
        file = "model.safetensors" if name.endswith("encoder") else "diffusion_pytorch_model.safetensors"
        if name == "text_encoder":  # the release's names, which differ from those of newer transformers
            weights = {key if key.startswith("text_model.") else f"text_model.{key}": value for key, value in weights.items()}
        _save(weights, folder / name / file, dtype)
    networks.tokenizer.save_pretrained(folder / "tokenizer")
    for file in VOCABULARY:  # newer transformers leave them out, and may have been given none
        if (source := Path(networks.tokenizer.name_or_path) / file).is_file():
            shutil.copy(source, folder / "tokenizer")
    networks.image_processor.save_pretrained(folder / "feature_extractor")
    networks.scheduler.save_pretrained(folder / "scheduler")
    _save(networks.pose_guider.state_dict(), folder / "pose_guider" / "diffusion_pytorch_model.safetensors", dtype)
    (folder / "pose_guider" / "config.json").write_text(json.dumps(networks.pose_config, indent=2) + "\n")
    image_attention = {key: value for key, value in networks.unet.state_dict().items() if ".processor." in key}
    _save(image_attention, folder / IMAGE_ATTENTION_FILES[0], dtype)
    index = {
        "_class_name": "Refs2ImagePipeline",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "pose_guider": ["parts2whole.models.pose_guider", "PoseGuider"],
        "reference_unet": ["parts2whole.models.reference_unet", "ReferenceUNet2DConditionModel"],
        "requires_safety_checker": False,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["parts2whole.models.unet_2d_condition", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")


def _forget_origin(config: Path):
    """Takes the path out that a network was loaded from."""
    told = json.loads(config.read_text())
    told.pop("_name_or_path", None)
    config.write_text(json.dumps(told, indent=2, sort_keys=True) + "\n")


def _save(weights: dict[str, torch.Tensor], path: Path, dtype: torch.dtype):
    path.parent.mkdir(parents=True, exist_ok=True)
    weights = {
        key: (value.to(dtype) if value.is_floating_point() else value).contiguous().cpu() for key, value in weights.items()
        if not key.endswith("position_ids")
    }
    save_file(weights, path, {"format": "pt"})


def load_trained(networks: Networks, folder: Path):
    """Puts the weights of a trained checkpoint, ours or the release, into networks built for it.

    raises: RuntimeError for weights that are missing or of another shape
    """
    for name in ("unet", "reference_unet", "pose_guider", "text_encoder", "image_encoder"):
        network = getattr(networks, name)
        path = sorted((folder / name).glob("*.safetensors"))[0]
        weights = {key: value for key, value in load_file(path).items() if not key.endswith("position_ids")}
        if name == "unet":  # the release's .pth is a safetensors file too
            weights |= load_file(next(folder / file for file in IMAGE_ATTENTION_FILES if (folder / file).is_file()))
        if name == "text_encoder" and not any(key.startswith("text_model.") for key in network.state_dict()):
            weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
        missing, unexpected = network.load_state_dict(weights, strict=False)
        missing = [key for key in missing if not key.endswith("position_ids")]
        if missing or unexpected:
            raise RuntimeError(f"{path}: missing {missing}, unexpected {unexpected}.")
