"""A checkpoint of the training code gives the same on diffusers, where it is trained, and through the nodes."""

import json

import numpy as np
import pytest
import torch
from conftest import ROOT
from workbench import apply_image_attention, apply_parts, apply_pose, rel, run, sample, text

from training import evaluate
from training.config import TrainConfig, load_config
from training.model import Parts2Whole, encode_batch
from training.networks import build_networks, load_trained, save_networks
from training.paper_dolls import HEIGHT, WIDTH, Pair, PaperDolls
from training.preview import sample_latents
from training.train import Encoded, collate

SEED = 1_000_003


@pytest.fixture(scope="module")
def diffusers_side(tmp_path_factory):
    """The networks of the paper-doll model, at random but for their VAE, saved as training saves them and loaded again."""
    config = load_config(
        TrainConfig, ROOT / "training" / "configs" / "paper_doll.yaml",
        [f"pretrained={ROOT / 'training' / 'paper_doll_vae'}", "data.cache_latents=false", "data.cut_out=0",
         f"new.tokenizer={ROOT / 'tests' / 'golden' / 'checkpoint' / 'tokenizer'}"],
    )
    with torch.inference_mode():
        networks = build_networks(config)
        folder = tmp_path_factory.mktemp("saved") / "checkpoint"
        save_networks(networks, folder, torch.float16)
        load_trained(networks, folder)
        return Parts2Whole(networks, config).eval(), Encoded(PaperDolls(4, SEED), networks, config), folder


@pytest.fixture(scope="module")
def nodes_side(folders, diffusers_side):
    from parts2whole.encoders.checkpoint import Checkpoint

    link = folders / "models" / "parts2whole" / "both_sides"
    link.symlink_to(diffusers_side[2])
    with torch.inference_mode():
        yield Checkpoint(*run("Parts2WholeLoader", checkpoint="both_sides"))
    link.unlink()


def image(picture):
    return torch.from_numpy(np.array(picture).astype(np.float32) / 255)[None]


@pytest.mark.parametrize("index", [0, 1])
def test_sampling_ends_in_the_same_latents(nodes_side, diffusers_side, index):
    model, encoded, folder = diffusers_side
    batch = encode_batch(encoded.networks.vae, collate([encoded[index]]))
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    expected = sample_latents(model, batch, noise, steps=6, guidance=2.0)

    pair = Pair(SEED, index)
    references = [pair.reference(label) for label in pair.doll.wears]
    parts = run("Parts2WholeEncodeLabels", clip=nodes_side.clip, parts={
        f"part{i}": run("Parts2WholeMakePart", image=image(r.image), label=r.label, mask=image(r.mask))
        for i, r in enumerate(references)
    })
    appearance = run(
        "Parts2WholeEncodeAppearance", appearance_encoder=nodes_side.appearance_encoder, vae=nodes_side.vae, parts=parts,
        width=WIDTH, height=HEIGHT,
    )
    patched = apply_pose(apply_parts(nodes_side.model, appearance), nodes_side.pose_guider, image(pair.pose))
    patched = apply_image_attention(patched, nodes_side, parts)
    sigmas = run("Parts2WholeSigmas", model=patched, steps=6, denoise=1.0)
    scale = json.loads((folder / "vae" / "config.json").read_text())["scaling_factor"]
    latents = sample(
        patched, nodes_side.clip, {"samples": noise * (1 + sigmas[0] ** 2) ** 0.5 / scale}, sampler="ddim", cfg=2.0, sigmas=sigmas,
        positive=text(nodes_side.clip, pair.doll.caption),
    )
    assert rel(latents * scale / (1 + sigmas[-1] ** 2) ** 0.5, expected) <= 1e-3


def test_every_condition_of_the_evaluation_draws(nodes_side, monkeypatch, capsys):
    """One figure and two steps, with weights that know nothing: what is left out makes another picture."""
    monkeypatch.setattr(evaluate, "STEPS", 2)
    drawer = evaluate.Drawer("both_sides")
    (pair,) = evaluate.figures(1, wears_all=True)
    references = [pair.reference(label) for label in evaluate.labels_of(pair, 3)]
    pictures = {
        condition.name: drawer.draw(pair, references[:condition.references], condition, seed=1) for condition in evaluate.CONDITIONS
    }
    assert all(picture.shape == (HEIGHT, WIDTH, 3) for picture in pictures.values())
    alike = {"3 references", "4 references", "6 references, other figures"}  # only three are given here
    assert len({picture.tobytes() for name, picture in pictures.items() if name not in alike}) == len(pictures) - 3

    result = evaluate.evaluate(drawer, count=1, swaps=1)
    assert set(result["rows"]) >= {condition.name for condition in evaluate.CONDITIONS} | {"mean colour", "the true picture"}
    assert result["rows"]["the true picture"]["colour"] < result["rows"]["3 references"]["colour"]
    assert "swap locality" in capsys.readouterr().out
