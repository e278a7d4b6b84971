"""Fixtures of the toy, and a VAE for it that was not trained. A plugin of the test files that name it."""

import pytest
import torch
from accelerate.state import AcceleratorState
from harness.toy_training import CONFIGS, prepare, toy_config

from training.config import VaeConfig, load_config
from training.dataset import open_dataset
from training.train_vae import save_vae
from training.vae_start import new_vae


@pytest.fixture(scope="session")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    config = load_config(VaeConfig, CONFIGS / "paper_doll_vae.yaml", ["data.paper_dolls=4", "data.width=64", "data.height=96"])
    torch.manual_seed(0)
    with torch.inference_mode():
        save_vae(new_vae(**{**config.model, "block_out_channels": [32] * 4}), open_dataset(config.data), folder)
    return folder


@pytest.fixture(scope="session")
def toy_networks(vae_folder):
    """What `prepare` gives, for tests that change no weights: any number of models can be built on it."""
    with torch.inference_mode():
        return prepare(toy_config(vae_folder, "data.cache_latents=false"))


@pytest.fixture
def configure(vae_folder, tmp_path):
    return lambda *settings: toy_config(vae_folder, f"loop.output={tmp_path / 'run'}", *settings)


@pytest.fixture
def training():
    """The host runs nodes in inference mode; training needs gradients. And each run chooses its precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch.inference_mode(False), torch.enable_grad():
        yield
