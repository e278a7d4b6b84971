"""A component's configuration, checked before anything is built by it: its numbers are in bounds and fit the weights beside it."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
import yaml

from ...pictures.model_files import require_fit, require_number
from .files import DOWNLOAD, read_config, require_none_missing

MOST_BLOCKS, MOST_LAYERS, MOST_CHANNELS = 8, 8, 8192
GROUPS = 32  # of the host's group norms, whatever a configuration says
# What is read of an image encoder's: the host builds further networks by other names.
_IMAGE_ENCODER = (
    "model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act", "num_channels",
    "image_size", "patch_size", "projection_dim",
)
_ACTIVATIONS = ("quick_gelu", "gelu")

Weights = dict[str, torch.Tensor]


def unet_numbers(folder: str, component: str) -> dict:
    """The configuration of a U-Net, with numbers in bounds. raises: ValueError"""
    config, path = read_config(folder, component), _path(folder, component)
    blocks = config.get("down_block_types")
    blocks = len(blocks) if isinstance(blocks, list) else 0
    require_number(path, {"down_block_types": blocks}, "down_block_types", 1, MOST_BLOCKS)
    require_number(path, config, "block_out_channels", 1, MOST_CHANNELS, count=blocks)
    require_number(path, config, "layers_per_block", 1, MOST_LAYERS)
    for name in ("in_channels", "out_channels", "cross_attention_dim"):
        require_number(path, config, name, 1, MOST_CHANNELS)
    _require_groups(path, config)
    for name, kinds in (
        ("down_block_types", ("DownBlock2D", "CrossAttnDownBlock2D")), ("up_block_types", ("UpBlock2D", "CrossAttnUpBlock2D"))
    ):
        kinds_given = config.get(name)
        if not isinstance(kinds_given, list) or len(kinds_given) != blocks or any(kind not in kinds for kind in kinds_given):
            raise ValueError(f"{path}: {name} is not a list of {blocks} of {' and '.join(kinds)}.")
    return config


def require_unet_fits(folder: str, component: str, config: dict, weights: Weights):
    """raises: ValueError where the configuration is of another U-Net than the weights"""
    shape = _Shapes(folder, component, weights)
    first = shape("conv_in.weight", 4)
    blocks = shape.count("down_blocks.")
    attention = next((name for name in weights if name.endswith("attn2.to_k.weight")), "attn2.to_k.weight")
    require_fit(_path(folder, component), config, {
        "in_channels": first[1],
        "block_out_channels": [
            *(shape(f"down_blocks.{i}.downsamplers.0.conv.weight", 4)[0] for i in range(blocks - 1)),
            shape("mid_block.resnets.0.conv1.weight", 4)[0],
        ],
        "layers_per_block": shape.count("down_blocks.0.resnets."),
        "cross_attention_dim": shape(attention, 2)[1],
        # The release's reference U-Net has no last convolution.
        **({"out_channels": shape("conv_out.weight", 4)[0]} if "conv_out.weight" in weights else {}),
    }, DOWNLOAD)


def text_encoder_config(folder: str, weights: Weights) -> dict:
    """raises: ValueError"""
    config, path = read_config(folder, "text_encoder"), _path(folder, "text_encoder")
    shape = _Shapes(folder, "text_encoder", weights)
    require_fit(path, config, {
        "hidden_size": shape("text_model.embeddings.token_embedding.weight", 2)[1],
        "intermediate_size": shape("text_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": shape.count("text_model.encoder.layers."),
    }, DOWNLOAD)
    _require_transformer(path, config)
    return config


def image_encoder_config(folder: str, weights: Weights) -> dict:
    """raises: ValueError"""
    config, path = read_config(folder, "image_encoder"), _path(folder, "image_encoder")
    if config.get("model_type") != "clip_vision_model":
        raise ValueError(f"{path}: model_type is {config.get('model_type')!r}, expected 'clip_vision_model'. {DOWNLOAD}")
    shape = _Shapes(folder, "image_encoder", weights)
    patches = shape("vision_model.embeddings.patch_embedding.weight", 4)
    require_fit(path, config, {
        "hidden_size": patches[0], "num_channels": patches[1], "patch_size": patches[2],
        "intermediate_size": shape("vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": shape.count("vision_model.encoder.layers."),
        "projection_dim": shape("visual_projection.weight", 2)[0],
    }, DOWNLOAD)
    require_number(path, config, "image_size", config["patch_size"], MOST_CHANNELS)
    tokens = 1 + (config["image_size"] // config["patch_size"]) ** 2
    require_fit(path, {"the number of tokens at this image_size": tokens}, {
        "the number of tokens at this image_size": shape("vision_model.embeddings.position_embedding.weight", 2)[0],
    }, DOWNLOAD)
    _require_transformer(path, config)
    return {name: config[name] for name in _IMAGE_ENCODER}


def feature_extractor_config(folder: str) -> dict:
    """raises: ValueError"""
    file = "preprocessor_config.json"
    config, path = read_config(folder, "feature_extractor", file), _path(folder, "feature_extractor", file)
    require_number(path, config, "image_mean", 0, 1, count=3, whole=False)
    require_number(path, config, "image_std", 1e-3, 10, count=3, whole=False)
    return config


def vae_config(folder: str, weights: Weights | None = None) -> dict:
    """weights: None for its numbers only. raises: ValueError"""
    config, path = read_config(folder, "vae"), _path(folder, "vae")
    require_number(path, {"scaling_factor": 0.18215, **config}, "scaling_factor", 1e-4, 1e4, whole=False)
    _require_groups(path, config)
    if weights is not None:
        shape = _Shapes(folder, "vae", weights)
        last = shape("encoder.conv_out.weight", 4)
        require_fit(path, config, {
            "in_channels": shape("encoder.conv_in.weight", 4)[1],
            "out_channels": shape("decoder.conv_out.weight", 4)[0],
            "latent_channels": last[0] // 2,
            "block_out_channels": [
                *(
                    shape(f"encoder.down_blocks.{i}.downsamplers.0.conv.weight", 4)[0]
                    for i in range(shape.count("encoder.down_blocks.", "downsamplers"))
                ),
                last[1],
            ],
            "layers_per_block": shape.count("encoder.down_blocks.0.resnets."),
        }, DOWNLOAD)
    return config


def pose_guider_config(folder: str, weights: Weights) -> dict:
    """raises: ValueError"""
    config = {"conditioning_channels": 3, **read_config(folder, "pose_guider")}
    shape = _Shapes(folder, "pose_guider", weights)
    first = shape("conv_in.weight", 4)
    require_fit(_path(folder, "pose_guider"), config, {
        "conditioning_channels": first[1],
        "block_out_channels": [
            first[0], *(shape(f"blocks.{i}.weight", 4)[0] for i in range(1, shape.count("blocks."), 2)),
        ],
        "conditioning_embedding_channels": shape("conv_out.weight", 4)[0],
    }, DOWNLOAD)
    return config


def image_attention_sizes(folder: str, weights: Weights, blocks: Iterable[str]) -> tuple[list[int], int]:
    """The width of each block's projections, and that of an image token.

    blocks: diffusers' names
    raises: ValueError for projections that are missing, or do not belong to each other
    """
    shape, sizes = _Shapes(folder, "decoupled_attn.pth", weights), []
    for block in blocks:
        keys, values = (shape(f"{block}.attn2.processor.{layer}.weight", 2) for layer in ("to_k_dc", "to_v_dc"))
        sizes.append(keys)
        if not keys == values == [keys[0], sizes[0][1]]:
            raise ValueError(
                f"{os.path.join(folder, 'decoupled_attn.pth')}: the projections of {block} have the shapes {keys} and {values}, "
                f"expected two alike, for image tokens of {sizes[0][1]} channels as in the first block. {DOWNLOAD}"
            )
    return [keys[0] for keys in sizes], sizes[0][1]


def scheduler_config(folder: str) -> dict:
    """raises: ValueError"""
    file = "scheduler_config.json"
    config, path = read_config(folder, "scheduler", file), _path(folder, "scheduler", file)
    require_number(path, config, "num_train_timesteps", 1, 10_000)
    require_number(path, config, "beta_start", 1e-9, 0.999, whole=False)
    require_number(path, config, "beta_end", config["beta_start"], 0.999, whole=False)
    return config


def trained_size(folder: str) -> tuple[int, int] | None:
    """Width and height in pixels of the pictures of the training, as the training of this pack writes them beside a checkpoint;
    None where it does not."""
    try:
        with open(os.path.join(folder, "training.yaml"), encoding="utf-8") as file:
            data = yaml.safe_load(file)["data"]
            width, height = data["width"], data["height"]
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError, RecursionError):
        return None
    return (width, height) if type(width) is type(height) is int else None


def _require_groups(path: str, config: dict):
    groups = config.get("norm_num_groups", GROUPS)
    if groups != GROUPS:
        raise ValueError(f"{path}: norm_num_groups is {groups!r}, but ComfyUI normalizes U-Nets and VAEs in {GROUPS} groups.")


def _require_transformer(path: str, config: dict):
    require_number(path, config, "num_attention_heads", 1, config["hidden_size"])
    if config["hidden_size"] % config["num_attention_heads"]:
        raise ValueError(f"{path}: hidden_size {config['hidden_size']} is no multiple of num_attention_heads. {DOWNLOAD}")
    if config.get("hidden_act") not in _ACTIVATIONS:
        raise ValueError(f"{path}: hidden_act is not one of {', '.join(_ACTIVATIONS)}. {DOWNLOAD}")


def _path(folder: str, component: str, file: str = "config.json") -> str:
    return os.path.join(folder, component, file)


class _Shapes:
    """Looks shapes up in a component's weights."""

    def __init__(self, folder: str, component: str, weights: Weights):
        self.folder, self.component, self.weights = folder, component, weights

    def __call__(self, name: str, dimensions: int) -> list[int]:
        """raises: ValueError where the weights lack it, or it has other dimensions"""
        require_none_missing([] if name in self.weights else [name], self.folder, self.component)
        shape = list(self.weights[name].shape)
        if len(shape) != dimensions:
            folder = os.path.join(self.folder, self.component)
            raise ValueError(f"{name} in {folder} has shape {shape}, expected {dimensions} dimensions. {DOWNLOAD}")
        return shape

    def count(self, prefix: str, infix: str = "") -> int:
        """How many numbers follow a prefix."""
        return len({
            name[len(prefix):].split(".")[0] for name in self.weights if name.startswith(prefix) and infix in name
        })
