"""How the dolls' VAE begins, and what it is shown."""

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.resnet import ResnetBlock2D
from harness.host import ROOT

from training.config import VaeConfig, load_config
from training.paper_dolls.pairs import Pair
from training.train_vae import VaeLoss
from training.vae_start import new_vae

pytest_plugins = ["harness.toy_fixtures"]

CONFIG = ROOT / "training" / "configs" / "paper_doll_vae.yaml"


@pytest.fixture(scope="module")
def vae():
    return new_vae(**load_config(VaeConfig, CONFIG).model)


def test_it_fits_the_host_and_the_checkpoint(vae):
    """The host normalizes in 32 groups, and takes the widths as multiples of the first."""
    widths = vae.config.block_out_channels
    assert vae.config.norm_num_groups == 32 and not any(width % 32 or width % widths[0] for width in widths)
    assert 2 * sum(parameter.numel() for parameter in vae.parameters()) < 5e6


@torch.no_grad()
def test_it_begins_by_passing_colours_through(vae):
    """Those of a flat picture too, which one group norm over few channels takes away."""
    flat = torch.tensor([0.7, -0.2, 0.4])[None, :, None, None].expand(1, 3, 64, 96)
    doll = torch.from_numpy(Pair(3, 1, 128, 192).drawing.image).movedim(-1, 0)[None] / 127.5 - 1
    for picture in (flat, doll):
        latent = vae.encode(picture).latent_dist.mean
        blocks = F.interpolate(F.avg_pool2d(picture, 8), scale_factor=8)
        assert (vae.decode(latent).sample - blocks).abs().mean() < 0.04


@torch.no_grad()
def test_blocks_that_change_the_width_begin_as_copies():
    config = {**load_config(VaeConfig, CONFIG).model, "block_out_channels": [32, 32, 64, 96], "layers_per_block": 1}
    blocks = [module for module in new_vae(**config).modules() if isinstance(module, ResnetBlock2D)]
    blocks = [block for block in blocks if block.conv_shortcut is not None]
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


def test_the_decoder_alone_can_learn_on(training):
    config = load_config(VaeConfig, CONFIG, ["decoder_only=true", "crop=32"])
    loss = VaeLoss(new_vae(**config.model), config)
    loss(torch.randn(1, 3, 64, 64), torch.Generator().manual_seed(0))["loss"].backward()
    learning = {name.split(".")[0] for name, parameter in loss.vae.named_parameters() if parameter.grad is not None}
    assert learning == {"decoder", "post_quant_conv"}
