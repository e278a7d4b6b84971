"""A photograph of a person becomes a label map: by a SegFormer that parses people."""

from __future__ import annotations

import os

import comfy.model_management
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F

from .label_maps import SCHEMES
from .model_folders import choices, names_below, path_below
from .on_device import device_of, load_whole
from .segformer import load_segformer

FOLDER = "human_parsing"
MEND = (
    "Expected config.json, preprocessor_config.json and model.safetensors of a SegFormer, as in mattmdjaga/segformer_b2_clothes: "
    "download the folder again."
)


def register_folder():
    """Adds models/human_parsing to the host's folders."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def list_parsers() -> list[str]:
    """Folders in models/human_parsing that hold a model; or that there are none."""
    return choices(names_below(_roots(), _is_parser), f"models/{FOLDER}")


def parser_folder(name: str) -> str:
    """raises: FileNotFoundError that says what to put where"""
    return path_below(
        name, _roots(), _is_parser, "human parser",
        "Put a folder there with config.json, preprocessor_config.json and model.safetensors of a SegFormer for human parsing, for "
        "example mattmdjaga/segformer_b2_clothes, and refresh the editor.",
    )


def parse_photo(images: torch.Tensor, folder: str) -> tuple[torch.Tensor, str]:
    """Parses photographs with a SegFormer, from the files of its folder only.

    images: [B, H, W, 3 or 4] in 0..1
    returns: [B, H, W], numbers of SCHEMES[scheme], and which scheme: that which knows most of the model's classes by name
    raises: ValueError for a model whose classes are not those of clothes, and for files that are missing or damaged
    """
    progress = comfy.utils.ProgressBar(1 + len(images))
    try:
        processor, model = load_segformer(folder, MEND)
    except (OSError, ValueError) as error:
        raise ValueError(f"The human parser cannot be loaded: {error}") from error
    names = [_plain(name) for _, name in sorted(model.config.id2label.items())]
    scheme = max(SCHEMES, key=lambda scheme: len(set(SCHEMES[scheme]) & set(names)))
    if "upper-clothes" not in names:
        raise ValueError(
            f"The model in {folder} does not parse clothes: its classes are {', '.join(names[:6])}, ... Expected those of ATR, as "
            "mattmdjaga/segformer_b2_clothes has them, of LIP or of CIHP."
        )
    patcher = load_whole(model.float().eval().requires_grad_(False), comfy.model_management.get_torch_device())
    numbers = torch.tensor([SCHEMES[scheme].index(name) if name in SCHEMES[scheme] else 0 for name in names])
    progress.update(1)
    maps = []
    for image in images:
        comfy.model_management.throw_exception_if_processing_interrupted()
        pixels = (image[..., :3].cpu().clamp(0, 1) * 255).round().byte().numpy()
        inputs = processor(images=pixels, return_tensors="pt")["pixel_values"].to(device_of(patcher))
        logits = model(pixel_values=inputs).logits.float()
        classes = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)[0].argmax(0)
        maps.append(numbers[classes.cpu()])
        progress.update(1)
    return torch.stack(maps), scheme


def _is_parser(path: str) -> bool:
    return os.path.isfile(os.path.join(path, "config.json"))


def _roots() -> list[str]:
    return folder_paths.get_folder_paths(FOLDER)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")
