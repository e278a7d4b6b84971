"""All networks of Parts2Whole on diffusers and transformers: built, loaded, and saved as the release is."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn as nn
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from safetensors.torch import load_file, save_file
from transformers import (
    CLIPImageProcessor,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedModel,
)

from encoders.pose_network import PoseNetwork

from .config import TrainConfig
from .processors import keep_norm1, share_attention

VOCABULARY = ("vocab.json", "merges.txt")
IMAGE_ATTENTION_FILES = ("decoupled_attn.safetensors", "decoupled_attn.pth")


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


def build_networks(config: TrainConfig) -> Networks:
    """Loads what `pretrained` has and builds the rest.

    The reference U-Net begins as a copy of the U-Net, so that a reference's features and the target's are alike. Of a
    checkpoint that has been trained already, its own are loaded.

    raises: FileNotFoundError for a folder that is missing, with the configuration's name for it
    """
    folder, new = Path(config.pretrained), config.new
    torch.manual_seed(config.loop.seed)

    def load(kind: type, name: str):
        return load_local(kind, "pretrained", folder, name)

    vae = load(AutoencoderKL, "vae").requires_grad_(False)
    # By the whole path: save_networks looks there for the vocabulary.
    key, path = ("new.tokenizer", Path(new["tokenizer"])) if "tokenizer" in new else ("pretrained", folder / "tokenizer")
    tokenizer = load_local(CLIPTokenizer, key, path)
    scheduler = DDIMScheduler(**new["scheduler"]) if "scheduler" in new else load(DDIMScheduler, "scheduler")
    text_encoder = (
        CLIPTextModel(CLIPTextConfig(**new["text_encoder"])) if "text_encoder" in new else load(CLIPTextModel, "text_encoder")
    )
    if "image_encoder" in new:
        image_encoder = CLIPVisionModelWithProjection(CLIPVisionConfig(**new["image_encoder"]))
        size = new["image_encoder"]["image_size"]
        image_processor = CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    else:
        key, images = ("image_encoder", Path(config.image_encoder)) if config.image_encoder else ("pretrained", folder)
        inside = not config.image_encoder or (images / "image_encoder").is_dir()
        image_encoder = load_local(CLIPVisionModelWithProjection, key, images, "image_encoder" if inside else "")
        image_processor = load_local(CLIPImageProcessor, key, images, "feature_extractor" if inside else "")

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
    if "unet" in new:
        with torch.no_grad():
            pose_guider.conv_in.weight[:, 2] *= 255 / 24  # blue is the part index 0..24, of 255: as large as the others
    else:  # so that it begins by changing nothing of a trained U-Net
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
    return networks


def load_local(kind: type, key: str, folder: Path, subfolder: str = ""):
    """A network, tokenizer or schedule of diffusers or transformers, from a folder. The libraries would take a folder that is
    missing for a name to ask the network for.

    key: the configuration's name for the folder
    raises: FileNotFoundError for a folder that is missing
    """
    if not (folder / subfolder).is_dir():
        raise FileNotFoundError(
            f"{folder / subfolder} is no folder. A {kind.__name__} is loaded from there: correct `{key}` in the configuration."
        )
    # By default a config.json may name an attention kernel, which transformers would fetch.
    attention = {"attn_implementation": "sdpa"} if issubclass(kind, PreTrainedModel) else {}
    return kind.from_pretrained(folder, subfolder=subfolder, local_files_only=True, **attention)


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
    if all((folder / "tokenizer" / file).is_file() for file in VOCABULARY):  # of which this is a copy
        (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
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

    raises: FileNotFoundError for a network without a file; RuntimeError for weights that are missing or of another shape
    """
    for name in ("unet", "reference_unet", "pose_guider", "text_encoder", "image_encoder"):
        network = getattr(networks, name)
        files = sorted((folder / name).glob("*.safetensors"))
        if not files:
            raise FileNotFoundError(f"{folder / name} has no safetensors file: `pretrained` must name a whole checkpoint.")
        path = files[0]
        weights = {key: value for key, value in load_file(path).items() if not key.endswith("position_ids")}
        if name == "unet":  # the release's .pth is a safetensors file too
            weights |= load_file(next(folder / file for file in IMAGE_ATTENTION_FILES if (folder / file).is_file()))
        if name == "text_encoder" and not any(key.startswith("text_model.") for key in network.state_dict()):
            weights = {key.removeprefix("text_model."): value for key, value in weights.items()}
        missing, unexpected = network.load_state_dict(weights, strict=False)
        missing = [key for key in missing if not key.endswith("position_ids")]
        if missing or unexpected:
            raise RuntimeError(f"{path}: missing {missing}, unexpected {unexpected}.")
