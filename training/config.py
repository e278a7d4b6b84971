"""What a training run can be told, and its defaults: those of the release (arXiv 2404.15267, section 4.1)."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import MISSING, DictConfig, OmegaConf


@dataclass
class DataConfig:
    """Either rows on disk, or `paper_dolls` samples drawn from `seed`."""

    rows: str | None = None
    structure: str = "densepose"
    paper_dolls: int = 0
    seed: int = 0
    width: int = 512
    height: int = 512
    # Share of the reference pictures that are cut out by their mask and put on white, as users bring them too.
    cut_out: float = 0.0
    # Keeps what the frozen VAE makes of the pictures in memory: for small datasets, and for training on a CPU.
    cache_latents: bool = False


@dataclass
class DropoutConfig:
    """How often something is left out, each with a probability of its own."""

    caption_and_images: float = 0.1
    # Both of these and all references at once: what classifier-free guidance compares with.
    everything: float = 0.0
    pose: float = 0.2
    all_references: float = 0.2
    each_reference: float = 0.2
    # Whether a single reference that is left out takes its image token with it. The release keeps that.
    with_images: bool = False
    # Whether a caption that is left out becomes the empty text rather than zeros.
    empty_caption: bool = False


@dataclass
class LoopConfig:
    output: str = MISSING
    seed: int = 0
    steps: int = 30_000
    # Ends the run before its schedule does.
    stop_after: int | None = None
    # For each process; one optimizer step takes batch_size * gradient_accumulation * processes samples.
    batch_size: int = 8
    gradient_accumulation: int = 1
    mixed_precision: str = "fp16"  # no, fp16 or bf16
    gradient_checkpointing: bool = True
    learning_rate: float = 2e-5
    learning_rate_schedule: str = "constant"  # of diffusers: constant, constant_with_warmup, cosine, ...
    warmup_steps: int = 0
    weight_decay: float = 1e-2
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.0  # 0: none
    workers: int = 4
    log_every: int = 50
    preview_every: int = 1000
    save_every: int = 1000


@dataclass
class VaeConfig:
    """A small VAE."""

    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    # The arguments of diffusers' AutoencoderKL, to begin from nothing, or the folder of a VAE to go on with.
    model: dict[str, Any] = field(default_factory=dict)
    start: str | None = None
    # Leaves the latents as they are, for a model that was trained on them already.
    decoder_only: bool = False
    # Crops are cheaper than whole pictures, which take the rest of the steps, one picture each.
    crop_share: float = 0.75
    crop: int = 64
    crops: int = 4
    # Of so many places, a crop is taken where the picture varies most: a figure fills a third of it.
    crop_tries: int = 1
    kl_weight: float = 1e-4


@dataclass
class TrainConfig:
    data: DataConfig = field(default_factory=DataConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    # A folder in diffusers' layout with what is not built from nothing: at least tokenizer, scheduler and VAE.
    pretrained: str = MISSING
    # Folder of the image encoder and its feature extractor, where `pretrained` has none.
    image_encoder: str | None = None
    # Components built from nothing, each with the arguments of its class's configuration. The reference U-Net is a copy
    # of the U-Net.
    new: dict[str, Any] = field(default_factory=dict)
    train_text_encoder: bool = False
    train_image_encoder: bool = False
    # Of the networks that are saved: float32, float16 or bfloat16.
    save_dtype: str = "float32"
    # The next six are for data that knows where in the target each part is: paper dolls. The release has none of them.
    # Weight of losses that tell each layer what references are for; from nothing it takes very long without. They are meant for
    # several `noises`, and cannot be switched within a run. See training/hints.py.
    hints: float = 0.0
    # How many kinds of parts the data tells apart, plain cloth included, and how many of them are patterns: the hints then teach
    # these too. Like `hints`, neither these nor `colours` can be switched within a run.
    kinds: int = 0
    patterns: int = 0
    # Whether they teach the two colours of each part, too.
    colours: bool = False
    # How much more an error counts in the parts' regions: they are a fifth of a picture, and their colours a third of its loss.
    region_weight: float = 0.0
    # The same for eyes and mouths, which are a few places each.
    detail_weight: float = 0.0
    # Different noises on one target, for which its references are encoded once.
    noises: int = 1


def read_config(schema: type, description: str):
    """The configuration that the command line names: a YAML file, then single settings such as loop.steps=100."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("config", type=Path, help="a YAML file, such as training/configs/paper_doll.yaml")
    parser.add_argument("settings", nargs="*", metavar="NAME=VALUE", help="settings that differ from the file's")
    arguments = parser.parse_args()
    return load_config(schema, arguments.config, arguments.settings)


def load_config(schema: type, path: Path, settings: Sequence[str] = ()):
    """A configuration file, over the file that it names as `base`, relative to itself; and over both the single settings.

    raises: ValueError for a value with ${...}, and for a file that is its own base; FileNotFoundError for a missing file;
        omegaconf.errors.OmegaConfBaseException for unknown names and values of the wrong type
    """
    single = OmegaConf.from_dotlist(list(settings))
    _refuse_references(OmegaConf.to_container(single), "the settings")
    return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(schema), _read_over_base(path), single))


def _read_over_base(path: Path, above: tuple[Path, ...] = ()) -> DictConfig:
    if path.resolve() in above:
        raise ValueError(f"{path} is its own base: `base` must name another file, which does not lead back.")
    config = OmegaConf.load(path)
    _refuse_references(OmegaConf.to_container(config), path)
    base = config.pop("base", None)
    return config if base is None else OmegaConf.merge(_read_over_base(path.parent / str(base), (*above, path.resolve())), config)


def _refuse_references(value, source, name: str = ""):
    """What ${...} stands for, such as a variable of the environment, would be written into the checkpoint's training.yaml."""
    if isinstance(value, str) and "${" in value:
        raise ValueError(f"{name} in {source} is {value!r}: ${{...}} is not replaced here. Write the value itself.")
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        _refuse_references(each, source, f"{name}.{key}" if name else str(key))
