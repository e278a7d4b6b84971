"""The shipped model gives the same on diffusers, where it was trained, and through the nodes."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from workbench import apply_image_attention, apply_parts, apply_pose, rel, run, sample, text

from training.config import TrainConfig, load_config
from training.networks import Parts2Whole, build_networks, encode_batch, load_trained
from training.paper_dolls import HEIGHT, WIDTH, Pair, PaperDolls
from training.preview import sample_latents
from training.train import Encoded, collate

MODEL = ROOT / "models" / "paper_doll"
SEED = 1_000_003


@pytest.fixture(scope="module")
def shipped(folders):
    from parts2whole.encoders.checkpoint import Checkpoint

    link = folders / "models" / "parts2whole" / "paper_doll"
    link.symlink_to(MODEL)
    with torch.inference_mode():
        yield Checkpoint(*run("Parts2WholeLoader", checkpoint="paper_doll"))
    link.unlink()


@pytest.fixture(scope="module")
def diffusers_side():
    config = load_config(
        TrainConfig, ROOT / "training" / "configs" / "paper_doll.yaml",
        [f"pretrained={MODEL}", f"new.tokenizer={MODEL / 'tokenizer'}", "data.cache_latents=false", "data.cut_out=0"],
    )
    networks = build_networks(config)
    load_trained(networks, MODEL)
    encoded = Encoded(PaperDolls(4, SEED), networks, config)
    return Parts2Whole(networks, config).eval(), encoded


def image(picture):
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255)[None]


@pytest.mark.parametrize("index", [0, 1])
def test_sampling_ends_in_the_same_latents(shipped, diffusers_side, index):
    model, encoded = diffusers_side
    batch = encode_batch(encoded.networks.vae, collate([encoded[index]]))
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    expected = sample_latents(model, batch, noise, steps=6, guidance=2.0)

    pair = Pair(SEED, index)
    references = [pair.reference(label) for label in pair.doll.wears]
    parts = run("Parts2WholeEncodeLabels", clip=shipped.clip, parts={
        f"part{i}": run("Parts2WholeMakePart", image=image(r.image), label=r.label, mask=image(r.mask))
        for i, r in enumerate(references)
    })
    appearance = run(
        "Parts2WholeEncodeAppearance", appearance_encoder=shipped.appearance_encoder, vae=shipped.vae, parts=parts,
        width=WIDTH, height=HEIGHT,
    )
    patched = apply_pose(apply_parts(shipped.model, appearance), shipped.pose_guider, image(pair.pose))
    patched = apply_image_attention(patched, shipped, parts)
    sigmas = run("Parts2WholeSigmas", model=patched, steps=6, denoise=1.0)
    scale = json.loads((MODEL / "vae" / "config.json").read_text())["scaling_factor"]
    latents = sample(
        patched, shipped.clip, {"samples": noise * (1 + sigmas[0] ** 2) ** 0.5 / scale}, sampler="ddim", cfg=2.0, sigmas=sigmas,
        positive=text(shipped.clip, pair.doll.caption),
    )
    assert rel(latents * scale / (1 + sigmas[-1] ** 2) ** 0.5, expected) <= 1e-3


def test_the_model_is_small_and_complete():
    assert sum(path.stat().st_size for path in MODEL.rglob("*")) <= 20e6
    for name in ("training.yaml", "log.jsonl", "README.md"):
        assert (MODEL / name).is_file()
