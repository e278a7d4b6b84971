"""How the dolls' VAE begins, and what it is shown."""

import pytest
import torch
from diffusers.models.resnet import ResnetBlock2D
from harness.host import ROOT

from training.config import VaeConfig, load_config
from training.train_vae import VaeLoss, new_vae

CONFIG = ROOT / "training" / "configs" / "doll_vae.yaml"


@pytest.fixture(scope="module")
def vae():
    return new_vae(**load_config(VaeConfig, CONFIG).model)


def test_it_fits_the_host_and_the_checkpoint(vae):
    """The host normalizes in 32 groups, and takes the widths as multiples of the first."""
    widths = vae.config.block_out_channels
    assert vae.config.norm_num_groups == 32 and not any(width % 32 or width % widths[0] for width in widths)
    assert 2 * sum(parameter.numel() for parameter in vae.parameters()) < 5e6


def test_blocks_that_change_the_width_begin_as_copies(vae):
    blocks = [module for module in vae.modules() if isinstance(module, ResnetBlock2D) and module.conv_shortcut is not None]
    assert {(block.in_channels, block.out_channels) for block in blocks} == {(32, 64), (64, 96), (96, 64), (64, 32)}
    for block in blocks:
        x = torch.randn(1, block.in_channels, 4, 4)
        copies = x[:, [channel % block.in_channels for channel in range(block.out_channels)]]
        assert torch.equal(block(x, None), copies)


def test_crops_are_taken_where_there_is_something_to_see(vae):
    pictures = torch.zeros(2, 3, 256, 128)
    pictures[:, :, 160:] = torch.randn(2, 3, 96, 128)

    def detail(tries):
        loss = VaeLoss(vae, load_config(VaeConfig, CONFIG, [f"crop_tries={tries}", "crops=8", "crop=64"]))
        crops = loss._crops(pictures, torch.Generator().manual_seed(0))
        assert crops.shape == (8, 3, 64, 64)
        return float(crops.std((2, 3)).mean())

    assert detail(8) > 1.5 * detail(1)
