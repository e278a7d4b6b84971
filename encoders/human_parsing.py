"""From a photograph of a person to its six labelled parts: by a SegFormer that parses people, or by a label map that is there."""

from __future__ import annotations

import os

import comfy.model_management
import comfy.model_patcher
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F

from .reference_picture import LABELS, Part, make_part

FOLDER = "human_parsing"
FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS

# The classes of the three datasets that human parsers are trained on, by their numbers.
SCHEMES = {
    "ATR": (
        "background", "hat", "hair", "sunglasses", "upper-clothes", "skirt", "pants", "dress", "belt", "left-shoe", "right-shoe",
        "face", "left-leg", "right-leg", "left-arm", "right-arm", "bag", "scarf",
    ),
    "LIP": (
        "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "jumpsuits",
        "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
    ),
    "CIHP": (
        "background", "hat", "hair", "glove", "sunglasses", "upper-clothes", "dress", "coat", "socks", "pants", "torso-skin",
        "scarf", "skirt", "face", "left-arm", "right-arm", "left-leg", "right-leg", "left-shoe", "right-shoe",
    ),
}
# Bare skin, gloves, socks and bags belong to no label.
CLASSES = {
    FACE: ("face", "sunglasses"),
    HAIR: ("hair", "hat"),
    UPPER: ("upper-clothes", "coat", "scarf"),
    LOWER: ("pants", "skirt", "belt"),
    WHOLE: ("dress", "jumpsuits"),
    SHOES: ("left-shoe", "right-shoe"),
}


def register_folder():
    """Adds models/human_parsing to the host's folders."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def list_parsers() -> list[str]:
    """Folders in models/human_parsing that hold a model."""
    return sorted(
        name for root in _roots() if os.path.isdir(root) for name in os.listdir(root)
        if os.path.isfile(os.path.join(root, name, "config.json"))
    )


def parser_folder(name: str) -> str:
    """raises: FileNotFoundError that says what to put where"""
    if name in list_parsers():
        folders = (os.path.join(root, name) for root in _roots())
        return next(folder for folder in folders if os.path.isfile(os.path.join(folder, "config.json")))
    raise FileNotFoundError(
        f"No human parser '{name}' in {' or '.join(_roots())}. Put a folder there with config.json, preprocessor_config.json and "
        "model.safetensors of a SegFormer for human parsing, for example mattmdjaga/segformer_b2_clothes, and refresh the editor."
    )


def parse_photo(images: torch.Tensor, folder: str) -> tuple[torch.Tensor, str]:
    """Parses photographs with a model of transformers, from its folder alone.

    images: [B, H, W, 3 or 4] in 0..1
    returns: [B, H, W], numbers of SCHEMES[scheme], and which scheme: that which knows most of the model's classes by name
    raises: ValueError for a model whose classes are not those of clothes, and for files that are missing or damaged
    """
    progress = comfy.utils.ProgressBar(1 + len(images))
    # Not above: the server's start need not wait for it.
    from transformers import AutoConfig, AutoModelForSemanticSegmentation, SegformerImageProcessor

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
        processor = SegformerImageProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModelForSemanticSegmentation.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"The human parser in {folder} cannot be loaded ({error}). Expected config.json, preprocessor_config.json and "
            "model.safetensors, as in mattmdjaga/segformer_b2_clothes: download the folder again."
        ) from error
    names = [_plain(name) for _, name in sorted(config.id2label.items())]
    scheme = max(SCHEMES, key=lambda scheme: len(set(SCHEMES[scheme]) & set(names)))
    if "upper-clothes" not in names:
        raise ValueError(
            f"The model in {folder} does not parse clothes: its classes are {', '.join(names[:6])}, ... Expected those of ATR, as "
            "mattmdjaga/segformer_b2_clothes has them, of LIP or of CIHP."
        )
    patcher = comfy.model_patcher.ModelPatcher(
        # In a module of our own: the host sets its `device`, which a model of transformers refuses.
        torch.nn.ModuleList([model.float().eval().requires_grad_(False)]),
        load_device=comfy.model_management.get_torch_device(),
        offload_device=comfy.model_management.unet_offload_device(),
    )
    comfy.model_management.load_model_gpu(patcher)
    numbers = torch.tensor([SCHEMES[scheme].index(name) if name in SCHEMES[scheme] else 0 for name in names])
    progress.update(1)
    maps = []
    for image in images:
        comfy.model_management.throw_exception_if_processing_interrupted()
        pixels = (image[..., :3].cpu().clamp(0, 1) * 255).round().byte().numpy()
        inputs = processor(images=pixels, return_tensors="pt")["pixel_values"].to(patcher.load_device)
        logits = model(pixel_values=inputs).logits.float()
        classes = F.interpolate(logits, size=image.shape[:2], mode="bilinear", align_corners=False)[0].argmax(0)
        maps.append(numbers[classes.cpu()])
        progress.update(1)
    return torch.stack(maps), scheme


def read_label_map(image: torch.Tensor, scheme: str) -> torch.Tensor:
    """A label map as a picture: class numbers as grey values 0..19, or in the colours of the PASCAL VOC palette.

    image: [B, H, W, 3 or 4] in 0..1
    returns: [B, H, W], numbers of SCHEMES[scheme]
    raises: ValueError for values that are neither
    """
    pixels = (image[..., :3].cpu().clamp(0, 1) * 255).round().long()
    count = len(SCHEMES[scheme])
    grey = (pixels == pixels[..., :1]).all()
    if grey and pixels.max() < count:
        return pixels[..., 0]
    distance = (pixels[..., None, :] - _voc_palette(count)).abs().amax(-1)
    nearest, number = distance.min(-1)
    if nearest.max() > 0:
        place = (nearest > 0).nonzero()[0].tolist()
        raise ValueError(
            f"The label map has the colour {pixels[tuple(place)].tolist()} at row {place[1]}, column {place[2]}: expected the "
            f"class numbers 0..{count - 1} of {scheme} as grey values, or their colours in the PASCAL VOC palette. Save it as PNG, "
            "without smoothing and unscaled."
        )
    return number


def parts_of(images: torch.Tensor, label_map: torch.Tensor, scheme: str, smallest: float) -> dict[str, Part | None]:
    """The six parts; None where the photograph shows none.

    images: [B, H, W, 3 or 4] in 0..1
    label_map: [B, H', W'], numbers of SCHEMES[scheme]
    smallest: share of the picture, 0..1, below which a part is taken for an error
    """
    if len(label_map) != len(images):
        raise ValueError(f"Got {len(images)} pictures and {len(label_map)} label maps: give one map for each picture.")
    parts = {}
    for label in LABELS:
        numbers = [SCHEMES[scheme].index(name) for name in CLASSES[label] if name in SCHEMES[scheme]]
        mask = torch.isin(label_map, torch.tensor(numbers)).float()
        shown = mask.mean((1, 2)) >= max(smallest, 1e-9)
        parts[label] = make_part(label, images[shown], mask[shown]) if shown.any() else None
    return parts


def _roots() -> list[str]:
    return folder_paths.get_folder_paths(FOLDER)


def _plain(name: str) -> str:
    return name.lower().replace("_", "-").replace(" ", "-")


def _voc_palette(count: int) -> torch.Tensor:
    """[count, 3]: the bits of the number, dealt out to red, green and blue from the highest bit on."""
    palette = torch.zeros(count, 3, dtype=torch.long)
    for number in range(count):
        for place in range(8):
            for channel in range(3):
                palette[number, channel] |= ((number >> (3 * place + channel)) & 1) << (7 - place)
    return palette
