"""The VAE's training on a toy."""

import json

import torch
from harness.toy_training import CONFIGS

from training.config import VaeConfig, load_config
from training.dataset import open_dataset
from training.train_vae import VaeLoss, VaePictures
from training.vae_start import new_vae

pytest_plugins = ["harness.toy_fixtures"]


def test_the_vae_learns(training, vae_folder):
    config = load_config(
        VaeConfig, CONFIGS / "paper_doll_vae.yaml", ["data.paper_dolls=4", "data.width=64", "data.height=96", "crops=2", "crop=32"]
    )
    torch.manual_seed(0)
    module = VaeLoss(new_vae(**{**config.model, "block_out_channels": [32] * 4}), config)
    pictures = torch.stack([VaePictures(open_dataset(config.data))[i] for i in range(4)])
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for step in range(15):
        loss = module(pictures, torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert json.loads((vae_folder / "vae" / "config.json").read_text())["scaling_factor"] > 0
