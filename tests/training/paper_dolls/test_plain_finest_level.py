"""A U-Net whose finest level has no attention: trained, saved and loaded by the nodes, it gives the same on both sides."""

import json

import pytest
import torch
from harness.both_sides import sampled_by_nodes
from harness.host import ROOT
from harness.workbench import rel, run
from parts2whole.attention.patch.host.unet import block_depths

from training.config import TrainConfig, VaeConfig, load_config
from training.dataset import open_dataset
from training.model import Parts2Whole, encode_batch
from training.networks import build_networks, save_networks
from training.paper_dolls.pairs import Pair
from training.preview import sample_latents
from training.train import Encoded, Step, collate
from training.train_vae import save_vae
from training.vae_start import new_vae

CONFIGS = ROOT / "training" / "configs"
SEED, WIDTH, HEIGHT = 3, 64, 96
SMALL = ("data.paper_dolls=2", f"data.seed={SEED}", f"data.width={WIDTH}", f"data.height={HEIGHT}")


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    config = load_config(VaeConfig, CONFIGS / "paper_doll_vae.yaml", list(SMALL))
    torch.manual_seed(0)
    save_vae(new_vae(**config.model), open_dataset(config.data), folder)
    return folder


@pytest.fixture(scope="module")
def diffusers_side(vae_folder):
    config = load_config(TrainConfig, CONFIGS / "paper_doll.yaml", [
        *SMALL, "data.cache_latents=false", "data.cut_out=0", f"pretrained={vae_folder}",
        f"new.tokenizer={ROOT / 'tests' / 'golden' / 'checkpoint' / 'tokenizer'}",
    ])
    with torch.inference_mode(False):
        networks = build_networks(config)
    return Parts2Whole(networks, config).eval(), Encoded(open_dataset(config.data), networks, config)


@pytest.fixture(scope="module")
def nodes_side(folders, diffusers_side, tmp_path_factory):
    from parts2whole.encoders.checkpoint.load import Checkpoint

    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_networks(diffusers_side[1].networks, folder, torch.float32)
    link = folders / "models" / "parts2whole" / "plain_finest_level"
    link.symlink_to(folder)
    yield Checkpoint(*run("Parts2WholeLoader", checkpoint="plain_finest_level"))
    link.unlink()


def test_the_nodes_find_attention_on_the_coarser_levels(nodes_side):
    depths = block_depths(nodes_side.model.model.diffusion_model)
    assert sorted(set(depths.values())) == [1, 2]
    assert set(block_depths(nodes_side.appearance_encoder.patcher.model.diffusion_model)) == set(depths)


def test_sampling_ends_in_the_same_latents(nodes_side, diffusers_side, vae_folder):
    model, encoded = diffusers_side
    batch = encode_batch(encoded.networks.vae, collate([encoded[0]]))
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    expected = sample_latents(model, batch, noise, steps=4, guidance=2.0)
    without = sample_latents(model, batch._replace(labels=batch.labels[:0]), noise, steps=4, guidance=2.0)
    assert rel(without, expected) > 1e-2

    scale = json.loads((vae_folder / "vae" / "config.json").read_text())["scaling_factor"]
    assert rel(sampled_by_nodes(nodes_side, Pair(SEED, 0, WIDTH, HEIGHT), noise, 4, scale), expected) <= 1e-3


def test_a_training_step_teaches_both_unets(diffusers_side):
    _, encoded = diffusers_side
    with torch.inference_mode(False), torch.enable_grad():
        step = Step(encoded.networks, encoded.config).train()
        losses = step(collate([encoded[0], encoded[1]]), torch.Generator().manual_seed(1))
        losses["loss"].backward()
        assert losses["looking"] > 0 and losses["reading"] > 0
        for unet in (step.model.unet, step.model.reference_unet):
            assert unet.conv_in.weight.grad.abs().sum() > 0
