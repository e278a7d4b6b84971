"""Where checkpoints lie and how their files are read: a folder in the layout of huanngzh/Parts2Whole."""

from __future__ import annotations

import os
from pathlib import Path

import folder_paths
import torch
import torch.nn as nn

from ...pictures.model_files import read_json, read_tensors
from ...pictures.model_folders import choices, names_below, path_below

FOLDER = "parts2whole"
PACK_MODELS = str(Path(__file__).resolve().parents[2] / "models")
WEIGHT_FILES = (
    "diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors", "diffusion_pytorch_model.bin",
    "model.safetensors", "model.fp16.safetensors", "pytorch_model.bin",
)
# What tells a Parts2Whole folder from any other diffusers folder.
REFERENCE_UNET = "reference_unet"
DOWNLOAD = "Download this part of the checkpoint again, as it is in huanngzh/Parts2Whole."


def register_folder():
    """Adds models/parts2whole to the host's folders, beside those that extra_model_paths.yaml names, and the pack's own models."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    folder_paths.add_model_folder_path(FOLDER, PACK_MODELS)


def list_checkpoints() -> list[str]:
    """Names of the folders in the release's layout, relative to models/parts2whole, models/diffusers or the pack's own models; or
    that there are none."""
    return choices(names_below(_roots(), _is_checkpoint), f"models/{FOLDER}")


def checkpoint_folder(name: str) -> str:
    """The full path of a checkpoint. raises: FileNotFoundError that names the folders looked into"""
    return path_below(
        name, _roots(), _is_checkpoint, "Parts2Whole checkpoint",
        "Download the folder huanngzh/Parts2Whole as it is, about 5 GB, from Hugging Face into "
        f"{os.path.join(folder_paths.models_dir, FOLDER)}, and press R in the editor. paper_doll needs no download.",
    )


def require_complete(folder: str, weights: dict[str, tuple[str, ...]], configs: dict[str, str]):
    """Looks for all files before the first is loaded: what is missing of a large download is best said at once.

    weights, configs: for each component, the file names of which one must be there, and the one that must be
    raises: FileNotFoundError that names everything that is missing
    """
    missing = [
        os.path.join(component, " or ".join(files)) for component, files in weights.items()
        if not any(os.path.isfile(os.path.join(folder, component, file)) for file in files)
    ]
    missing += [
        os.path.join(component, file) for component, file in configs.items()
        if not os.path.isfile(os.path.join(folder, component, file))
    ]
    if missing:
        raise FileNotFoundError(f"{folder} lacks {'; '.join(missing)}. {DOWNLOAD}")


def read_config(folder: str, component: str, file: str = "config.json") -> dict:
    """A component's configuration. raises: FileNotFoundError, ValueError"""
    return read_json(os.path.join(folder, component, file), DOWNLOAD)


def read_weights(folder: str, component: str, files: tuple[str, ...] = WEIGHT_FILES) -> dict[str, torch.Tensor]:
    """The tensors of a component, from the first of `files` that is there.

    raises: FileNotFoundError, and ValueError as `read_tensors`
    """
    base = os.path.join(folder, component)
    path = next((p for p in (os.path.join(base, file) for file in files) if os.path.isfile(p)), None)
    if path is None:
        raise FileNotFoundError(f"No weights in {base}: expected {' or '.join(files)}. {DOWNLOAD}")
    return read_tensors(path, DOWNLOAD)


def require_none_missing(missing: list[str], folder: str, component: str):
    """raises: ValueError that names the tensors that are missing"""
    if missing:
        missing = sorted(missing)
        some = ", ".join(missing[:8]) + (f" and {len(missing) - 8} more" if len(missing) > 8 else "")
        raise ValueError(f"The weights in {os.path.join(folder, component)} lack {some}. {DOWNLOAD}")


def require_shapes(
    module: nn.Module, weights: dict[str, torch.Tensor], folder: str, component: str, names: dict[str, str] | None = None
):
    """Compares tensors with the layers that they are for, before they are loaded.

    weights: by the module's names; names: those in the file, where they differ
    raises: ValueError that names the tensors of another shape
    """
    expected = {}
    for path, layer in module.named_modules():
        for name, shape in _shapes(layer).items():
            expected[f"{path}.{name}" if path else name] = shape
    wrong = [
        f"{(names or {}).get(name, name)} is {list(weight.shape)}, expected {expected[name]}"
        for name, weight in sorted(weights.items()) if name in expected and list(weight.shape) != expected[name]
    ]
    if wrong:
        some = "; ".join(wrong[:4]) + (f"; and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        place = os.path.join(folder, component)
        raise ValueError(f"The weights in {place} have other shapes than the configuration says: {some}. {DOWNLOAD}")


def _shapes(layer: nn.Module) -> dict[str, list[int]]:
    """What a layer's own tensors must be. Of the host's dynamic memory management it has no tensors yet."""
    shapes = {name: list(parameter.shape) for name, parameter in layer.named_parameters(recurse=False)}
    if isinstance(layer, nn.Linear):
        shapes |= {"weight": [layer.out_features, layer.in_features], "bias": [layer.out_features]}
    elif isinstance(layer, nn.Conv2d):
        shapes |= {
            "weight": [layer.out_channels, layer.in_channels // layer.groups, *layer.kernel_size], "bias": [layer.out_channels],
        }
    return shapes


def _is_checkpoint(path: str) -> bool:
    return os.path.isdir(os.path.join(path, REFERENCE_UNET))


def _roots() -> list[str]:
    return [root for name in (FOLDER, "diffusers") for root in folder_paths.get_folder_paths(name)]
