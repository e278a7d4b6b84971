"""What encoding references costs."""

from __future__ import annotations

from functools import partial

import comfy.sd
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from full_size import VAE
from parts2whole.encoders.appearance import AppearanceEncoder, encode_appearance, encode_reference
from parts2whole.pictures.part import LabelledPart, make_part
from plain_model import seconds_per_step
from timing import Time, compare, seconds_of, show, summarise


def bench_encoding(plain, options) -> dict:
    """One reference, by the U-Net alone."""
    width, height = options.size
    encoder = AppearanceEncoder(plain)
    part = make_part("part", torch.rand(1, height, width, 3))
    labelled = LabelledPart(part, torch.ones(1, 77, 768) * 0.1, None)
    latent, mask = torch.randn(1, 4, height // 8, width // 8), torch.ones(height, width)

    encode = partial(seconds_of, lambda: encode_reference(encoder, latent, mask, labelled, width, height))
    encode()
    takes = {
        "plain, unguided": partial(seconds_per_step, plain, width, height, cfg=1.0),
        "encoding one reference": encode,
        # What a batch of references would take at least, for each.
        "plain, a batch of three / 3": lambda: seconds_per_step(plain, width, height, batch=3, cfg=1.0) / 3,
    }
    rows = compare(takes, options.rounds, "plain, unguided")
    show(f"Encoding a reference at {width}x{height}, against a plain unguided forward pass", rows)
    return rows


def bench_requeue(plain, options) -> dict:
    """Encode Appearance with its VAE: three parts, then with one of them changed, then as they were."""
    width, height = options.size
    encoder = AppearanceEncoder(plain)
    vae = comfy.sd.VAE(sd=AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict())

    def part(seed: int) -> LabelledPart:
        image = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))
        return LabelledPart(make_part("part", image), torch.ones(1, 77, 768) * 0.1, None)

    def encode(*parts: LabelledPart) -> Time:
        return seconds_of(lambda: encode_appearance(encoder, vae, parts, width, height))

    encode(part(0))
    times = {"three parts": [], "one of them changed": [], "none changed": []}
    for i in range(options.rounds):
        first, second, third, other = (part(4 * i + j) for j in range(4))
        times["three parts"].append(encode(first, second, third))
        times["one of them changed"].append(encode(first, other, third))
        times["none changed"].append(encode(first, other, third))
    rows = summarise(times, "three parts")
    show(f"Encode Appearance at {width}x{height}, queued again, against the first time", rows)
    return rows
