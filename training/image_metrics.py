"""The paper's metrics on folders of pictures (arXiv 2404.15267, section 4.2), by well-kept libraries, from local weights.

    make evaluate ARGS="--generated DIR --references DIR --clip DIR --dino DIR ..."

Pairs are found by their file names without endings: generated `a.png` belongs to reference `a.jpg`, or to all references
`a_*.jpg`, one for each part. Every metric is computed whose weights are named; none is downloaded. Beyond
training/requirements.txt: `torchmetrics` and `lpips` for LPIPS, `torch-fidelity` for FID, `dreamsim` for DreamSim.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

# What the package would download where it is missing, in all its versions.
DREAMSIM = ("dino_vitb16_pretrain.pth", "clip_vitb16_pretrain.pth.tar", "open_clip_vitb16_pretrain.pth.tar")
ENDINGS = (".png", ".jpg", ".jpeg", ".webp")


def find_pairs(generated: Path, references: Path) -> list[tuple[Path, Path]]:
    """raises: ValueError that names the pictures without a partner"""
    others = [path for path in sorted(references.iterdir()) if path.suffix.lower() in ENDINGS]
    pairs, alone = [], []
    for path in sorted(generated.iterdir()):
        if path.suffix.lower() in ENDINGS:
            found = [other for other in others if other.stem == path.stem or other.stem.startswith(f"{path.stem}_")]
            pairs += [(path, other) for other in found]
            alone += [] if found else [path.name]
    if alone or not pairs:
        raise ValueError(f"{references} has no reference for {', '.join(alone) or f'any picture in {generated}'}.")
    return pairs


def similarity(pairs: list[tuple[Path, Path]], folder: Path) -> float:
    """Mean cosine similarity of a pair's embeddings: CLIP's image features, or the class token of DINOv2.

    folder: of a transformers model with its image processor
    raises: FileNotFoundError where it is missing
    """
    from transformers import AutoImageProcessor, AutoModel

    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is no folder: name one with a model and its image processor by --clip or --dino.")
    processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
    # By default a config.json may name an attention kernel, which transformers would fetch.
    model = AutoModel.from_pretrained(folder, local_files_only=True, attn_implementation="sdpa").eval().to(_device())

    def embed(path: Path) -> torch.Tensor:
        pixels = processor(_read(path), return_tensors="pt")["pixel_values"].to(model.device)
        if hasattr(model, "get_image_features"):
            features = model.get_image_features(pixel_values=pixels)
            return getattr(features, "pooler_output", features)[0]
        return model(pixel_values=pixels).last_hidden_state[0, 0]

    embedded = {path: embed(path) for path in {path for pair in pairs for path in pair}}
    return float(torch.stack([F.cosine_similarity(embedded[a], embedded[b], 0) for a, b in pairs]).mean())


def dreamsim(pairs: list[tuple[Path, Path]], folder: Path) -> float:
    """Mean DreamSim distance. folder: with the weights that the package would download

    raises: FileNotFoundError for those that are missing
    """
    if missing := [name for name in DREAMSIM if not (folder / name).exists()]:
        raise FileNotFoundError(f"{folder} lacks {', '.join(missing)}: name a folder with DreamSim's weights by --dreamsim.")
    from dreamsim import dreamsim as load

    model, preprocess = load(pretrained=True, cache_dir=str(folder), device=str(_device()))
    return _mean(model(preprocess(_read(a)).to(_device()), preprocess(_read(b)).to(_device())) for a, b in pairs)


def lpips(pairs: list[tuple[Path, Path]], weights: Path, size: int = 256) -> float:
    """Mean LPIPS distance with AlexNet. weights: torchvision's AlexNet state dict, a safetensors or .pth file"""
    import lpips as package

    model = package.LPIPS(net="alex", pnet_rand=True, verbose=False)  # random at first, so that nothing is downloaded
    state = _weights(weights)
    features = model.net
    convolutions = [module for module in features.modules() if isinstance(module, torch.nn.Conv2d)]
    for number, convolution in zip((0, 3, 6, 8, 10), convolutions):
        convolution.weight.data.copy_(state[f"features.{number}.weight"])
        convolution.bias.data.copy_(state[f"features.{number}.bias"])
    model = model.eval().to(_device())
    return _mean(model(_pixels(a, size) / 127.5 - 1, _pixels(b, size) / 127.5 - 1) for a, b in pairs)


def frechet_distance(generated: Path, real: Path, weights: Path) -> float:
    """FID between two folders. weights: torch-fidelity's Inception weights, `pt_inception-2015-12-05-6726825d.pth`"""
    import torch_fidelity

    return float(torch_fidelity.calculate_metrics(
        input1=str(generated), input2=str(real), fid=True, cuda=torch.cuda.is_available(), verbose=False,
        feature_extractor_weights_path=str(weights),
    )["frechet_inception_distance"])


def measure_folders(arguments) -> dict[str, float]:
    """All metrics whose weights are named. raises: ValueError where none is"""
    pairs = find_pairs(arguments.generated, arguments.references)
    metrics = {
        "CLIP image-image": arguments.clip and (lambda: similarity(pairs, arguments.clip)),
        "DINOv2": arguments.dino and (lambda: similarity(pairs, arguments.dino)),
        "DreamSim": arguments.dreamsim and (lambda: dreamsim(pairs, arguments.dreamsim)),
        "LPIPS": arguments.lpips and (lambda: lpips(pairs, arguments.lpips)),
        "FID": arguments.inception and (
            lambda: frechet_distance(arguments.generated, arguments.real or arguments.references, arguments.inception)
        ),
    }
    if not any(metrics.values()):
        raise ValueError("No metric has weights: name some by --clip, --dino, --dreamsim, --lpips or --inception.")
    with torch.inference_mode():
        return {name: metric() for name, metric in metrics.items() if metric}


def add_arguments(parser):
    group = parser.add_argument_group("the paper's metrics on folders of pictures, from local weights")
    group.add_argument("--generated", type=Path, help="pictures that were made")
    group.add_argument("--references", type=Path, help="the pictures that they should resemble")
    group.add_argument("--real", type=Path, help="pictures of the real world for FID; else the references")
    group.add_argument("--clip", type=Path, help="a folder with a CLIP model, such as clip-vit-large-patch14")
    group.add_argument("--dino", type=Path, help="a folder with a DINOv2 model, such as dinov2-base")
    group.add_argument("--dreamsim", type=Path, help="a folder with DreamSim's weights")
    group.add_argument("--lpips", type=Path, help="a file with torchvision's AlexNet weights")
    group.add_argument("--inception", type=Path, help="a file with torch-fidelity's Inception weights")


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _read(path: Path) -> Image.Image:
    with Image.open(path) as image:
        return image.convert("RGB")


def _pixels(path: Path, size: int) -> torch.Tensor:
    """[1, 3, size, size] in 0..255"""
    pixels = np.array(_read(path).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(pixels).movedim(-1, 0)[None].float().to(_device())


def _weights(path: Path) -> dict[str, torch.Tensor]:
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def _mean(values) -> float:
    return float(torch.stack([value.flatten()[0] for value in values]).mean())
