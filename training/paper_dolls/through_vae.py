"""What a VAE leaves of the dolls: the most that a model with it can reach.

    python -m training.paper_dolls.through_vae FOLDER

measures held-out figures as they are drawn and as they come out of the VAE, and writes some of them above each other.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from .measure import measure
from .pairs import Pair
from .rows import HELD_OUT_SEED

SHOWN = 6


@torch.inference_mode()
def through_vae(vae: AutoencoderKL, image: np.ndarray) -> np.ndarray:
    """[H, W, 3] uint8 -> the same"""
    pixels = torch.from_numpy(image).movedim(-1, 0)[None].to(vae.dtype) / 127.5 - 1
    restored = vae.decode(vae.encode(pixels).latent_dist.mean).sample[0].clamp(-1, 1)
    return ((restored.movedim(0, -1).float() + 1) * 127.5).round().byte().numpy()


def main():
    parser = argparse.ArgumentParser(description="Measures what a VAE leaves of the dolls.")
    parser.add_argument("vae", type=Path, help="a folder in diffusers' layout")
    parser.add_argument("--figures", type=int, default=24)
    parser.add_argument("--pictures", type=Path, help="a file for some figures above their reconstructions")
    arguments = parser.parse_args()
    vae = AutoencoderKL.from_pretrained(arguments.vae).eval()
    pairs = [Pair(HELD_OUT_SEED, i) for i in range(arguments.figures)]
    for name, draw in (
        ("as drawn", lambda pair: pair.drawing.image),
        ("through the VAE", lambda pair: through_vae(vae, pair.drawing.image)),
    ):
        measured = measure(pairs, draw)._asdict()
        print(f"{name:16}", *(f"{key} {value:.2f}" for key, value in measured.items()), flush=True)
    if arguments.pictures:
        drawn = [pair.drawing.image for pair in pairs[:SHOWN]]
        rows = [np.concatenate([image, through_vae(vae, image)]) for image in drawn]
        Image.fromarray(np.concatenate(rows, 1)).save(arguments.pictures)


if __name__ == "__main__":
    main()
