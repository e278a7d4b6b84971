"""Trains Parts2Whole: both U-Nets, the pose guider and the image attention.

    accelerate launch -m training.train training/configs/sd15.yaml
    python -m training.train training/configs/paper_doll.yaml
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from omegaconf import OmegaConf
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader, Dataset
from tqdm.auto import tqdm

from .config import TrainConfig, read_config
from .dataset import ReferencePicture, Sample, open_dataset
from .loop import fit
from .model import Batch, Parts2Whole, encode_batch, encode_pictures
from .networks import Networks, build_networks, save_networks, tokenize
from .preview import preview_pictures

# Of the files of latents: another number where what is drawn, or what is kept of it, has changed, so that no old file is taken.
KEPT = 4
# Keeps this random stream apart from those of the pictures.
CUT_OUT = 1000


class Encoded(Dataset):
    """Samples as tensors. What the frozen VAE makes of them is kept in memory where the configuration says so."""

    def __init__(self, samples, networks: Networks, config: TrainConfig):
        _check_known(samples, config)
        self.samples, self.networks, self.config = samples, networks, config
        self.kept = []
        if config.data.cache_latents:
            # Beside the output, for a run that goes on, and for the other processes.
            scale = networks.vae.config.scaling_factor
            told = json.dumps(
                [KEPT, asdict(config.data), scale, config.pretrained, config.image_encoder, config.new], sort_keys=True
            )
            file = Path(config.loop.output) / f"latents-{hashlib.sha256(told.encode()).hexdigest()[:12]}.safetensors"
            with PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU")).main_process_first():
                if not file.exists():
                    self._encode_all(file)
            tensors = load_file(file)
            names = {name.partition(".")[2] for name in tensors}
            self.kept = [{name: tensors[f"{i}.{name}"] for name in names} for i in range(len(samples))]

    def _encode_all(self, file: Path):
        vae = self.networks.vae.to("cuda" if torch.cuda.is_available() else "cpu")
        items = DataLoader(_Items(self), batch_size=None, num_workers=1, collate_fn=None)
        tensors = {}
        for i, item in enumerate(tqdm(items, desc="encoding", mininterval=5)):
            latents = encode_pictures(vae, torch.cat([item["picture"][None], item["references"]]).to(vae.device)).cpu()
            item = {**item, "picture": latents[0].clone(), "references": latents[1:].clone()}
            tensors |= {f"{i}.{name}": tensor.contiguous() for name, tensor in item.items()}
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file.with_suffix(".part"))
        file.with_suffix(".part").rename(file)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict:
        return self.kept[index] if self.kept else self.prepare(index)

    def prepare(self, index: int) -> dict:
        data = self.config.data
        width, height = size = data.width, data.height
        sample = self.samples[index]
        references = sample.references
        cut_out = np.random.default_rng([CUT_OUT, data.seed, index]).random(len(references)) < data.cut_out
        pictures = [
            pixels(crop_to_frame(on_white(reference) if cut else reference.image, size))
            for reference, cut in zip(references, cut_out)
        ]
        masks = [pixels(crop_to_frame(reference.mask, size)) for reference in references]
        images = [np.asarray(self.networks.image_processor(reference.image)["pixel_values"][0]) for reference in references]
        blank = torch.zeros(3, height, width, dtype=torch.uint8)
        return {
            "picture": pixels(crop_to_frame(sample.target, size)),
            "caption": tokenize(self.networks.tokenizer, [sample.caption])[0],
            "pose": pixels(crop_to_frame(sample.pose, size, Image.Resampling.LANCZOS)) if sample.pose else blank,
            "has_pose": torch.tensor(sample.pose is not None),
            "references": torch.stack(pictures) if pictures else blank[None][:0],
            "labels": tokenize(self.networks.tokenizer, [reference.label for reference in references])
            if references else torch.zeros(0, 77, dtype=torch.long),
            "masks": torch.stack(masks) if masks else blank[:0],
            **token_known(sample, width, height),
            "images": torch.tensor(np.array(images), dtype=torch.float16),
        }


def _check_known(samples, config: TrainConfig):
    """raises: ValueError where the configuration asks for more than the data knows of its targets"""
    asked = {name: getattr(config, name) for name in ("kinds", "patterns", "colours") if getattr(config, name)}
    if asked and not config.hints:
        raise ValueError(f"{', '.join(asked)}: these say what the hints teach, and `hints` is 0. Set `hints`, or leave them out.")
    if not (config.hints or config.region_weight or config.detail_weight):
        return
    known = samples[0].known
    if known is None:
        raise ValueError(
            "hints, region_weight and detail_weight are for data that knows where in the target each part is, such as paper "
            "dolls. Rows on disk do not tell it: set all three to 0."
        )
    for name, told in (("patterns", len(known.amounts)), ("kinds", known.all_kinds)):
        if asked.get(name, told) != told:
            raise ValueError(f"{name} is {asked[name]} in the configuration, and the data knows {told}: set it to that, or to 0.")


class _Items(Dataset):
    """A dataset's samples before they are encoded, for another process to prepare."""

    def __init__(self, encoded: Encoded):
        self.encoded = encoded

    def __len__(self) -> int:
        return len(self.encoded.samples)

    def __getitem__(self, index: int) -> dict:
        return self.encoded.prepare(index)


def collate(items: list[dict]) -> Batch:
    starts = np.cumsum([0, *(len(item["labels"]) for item in items)])
    return Batch(
        torch.stack([item["picture"] for item in items]),
        torch.stack([item["caption"] for item in items]),
        torch.stack([item["pose"] for item in items]).float() / 255,
        torch.stack([item["has_pose"] for item in items]),
        torch.cat([item["references"] for item in items]),
        torch.cat([item["labels"] for item in items]),
        torch.cat([item["masks"] for item in items]).float() / 255,
        torch.cat([item["images"] for item in items]).float(),
        torch.cat([item["regions"] for item in items]).float(),
        torch.cat([item["shown"] for item in items]).float(),
        torch.stack([item["amounts"] for item in items]).float(),
        torch.cat([item["kinds"] for item in items]),
        torch.cat([item["colours"] for item in items]).float(),
        torch.stack([item["details"] for item in items]).float(),
        tuple(tuple(range(a, b)) for a, b in zip(starts, starts[1:])),
    )


def token_known(sample: Sample, width: int, height: int) -> dict[str, torch.Tensor]:
    """What is known at each place of the latent, all but the kinds in 0..1, and [0] where nobody knows.

    regions, shown: [R, H/8, W/8]; details: [H/8, W/8]; amounts: [K, H/8, W/8]; kinds: [R]; colours: [R, 6]
    """
    known = sample.known
    if known is None:
        nothing = dict.fromkeys(("regions", "shown", "details", "amounts", "colours"), torch.zeros(0))
        return {**nothing, "kinds": torch.full((len(sample.references),), -1)}

    def shrink(maps: torch.Tensor) -> torch.Tensor:
        return F.adaptive_avg_pool2d(maps, (height // 8, width // 8)).half()

    return {
        "regions": shrink(torch.stack([pixels(region) for region in known.regions]).float() / 255),
        "shown": shrink(torch.from_numpy(np.stack([reference.shown for reference in sample.references]))),
        "details": shrink(pixels(known.details)[None].float() / 255)[0],
        "amounts": shrink(torch.from_numpy(known.amounts)),
        "kinds": torch.tensor(known.kinds),
        "colours": torch.from_numpy(known.colours).half(),
    }


def crop_to_frame(image: Image.Image, size: tuple[int, int], method=Image.Resampling.BICUBIC) -> Image.Image:
    """Crops to the frame's shape, in the middle, and resizes: people are not to be squashed. The release crops too, at random."""
    return ImageOps.fit(image, size, method)


def on_white(reference: ReferencePicture) -> Image.Image:
    """The part alone."""
    white = Image.new("RGB", reference.image.size, "white")
    return Image.composite(reference.image, white, reference.mask.resize(reference.image.size, Image.Resampling.BICUBIC))


def pixels(image: Image.Image) -> torch.Tensor:
    """[3, H, W], or [H, W] for one channel, uint8"""
    tensor = torch.from_numpy(np.array(image))
    return tensor.movedim(-1, 0) if tensor.ndim == 3 else tensor


class Step(torch.nn.Module):
    """One training step on a batch of pictures, or of latents where they are cached."""

    def __init__(self, networks: Networks, config: TrainConfig):
        super().__init__()
        self.model = Parts2Whole(networks, config)
        # The VAE is not trained: it is kept out of the module's parameters, and of what is saved for a resume.
        self.vae = [networks.vae]

    def forward(self, batch: Batch, generator: torch.Generator) -> dict[str, torch.Tensor]:
        return self.model(encode_batch(self.vae[0].to(self.model.unet.device), batch), generator)


def main():
    config = read_config(TrainConfig, "Trains Parts2Whole.")
    networks = build_networks(config)
    dataset = Encoded(open_dataset(config.data), networks, config)

    def save(module: Step, folder: Path):
        checkpoint = folder / "checkpoint"
        save_networks(networks, checkpoint, getattr(torch, config.save_dtype))
        OmegaConf.save(OmegaConf.structured(config), checkpoint / "training.yaml")
        if (folder / "log.jsonl").exists():
            shutil.copy(folder / "log.jsonl", checkpoint)

    def preview(module: Step) -> dict[str, torch.Tensor]:
        return preview_pictures(module.model, networks.vae, collate([dataset[i] for i in range(4)]))

    fit(Step(networks, config), dataset, collate, config.loop, save, preview)


if __name__ == "__main__":
    main()
