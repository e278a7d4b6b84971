"""A VAE that passes colours through before it has learned anything.

A group norm takes a group's mean over the whole picture away, and with it the absolute colours: ComfyUI's VAE has 32 groups
whatever the widths are, and one of one or two channels can carry no more than what varies in a picture. A group of three can
carry a value v exactly, with a carrier K much larger than v:

    (v, K - v/2, -K - v/2)    mean 0, variance (2 K^2 + 1.5 v^2) / 3

so that its norm, times the square root of 2/3 K, gives v again, and also -v from the second channel. SiLU(v) - SiLU(-v) = v
brings it through the activation.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from diffusers.models.attention_processor import Attention
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.upsampling import Upsample2D
from torch import nn

GROUP = 3
CARRIER = 4.0
# What is not a colour begins small, beside the values.
DETAIL = 0.3
LOG_VARIANCE = -8.0


@torch.no_grad()
def new_vae(**config) -> AutoencoderKL:
    """A VAE that begins as a chain of plain averages and copies: each 8 x 8 pixels come out in their mean colour.

    Residual branches and attention begin at zero, and so does all but a little of the latents' noise. The attention
    stays at zero: this VAE sees its surroundings only, so what it learns on crops holds for pictures of any size. Colours are
    exact where norm_num_groups is a third of the first and the last of block_out_channels, else they have to be learned.
    """
    vae = AutoencoderKL(**config)
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:  # from one width to another: copies too
                nn.init.zeros_(module.conv_shortcut.weight)
                nn.init.zeros_(module.conv_shortcut.bias)
                for channel in range(module.out_channels):
                    module.conv_shortcut.weight[channel, channel % module.in_channels] = 1
        elif isinstance(module, Attention):
            nn.init.zeros_(module.to_out[0].weight)
            nn.init.zeros_(module.to_out[0].bias)
        elif isinstance(module, Downsample2D):
            nn.init.zeros_(module.conv.weight)
            nn.init.zeros_(module.conv.bias)
            for channel in range(module.channels):
                module.conv.weight[channel, channel, :2, :2] = 0.25
        elif isinstance(module, Upsample2D):
            nn.init.dirac_(module.conv.weight)
            nn.init.zeros_(module.conv.bias)
    widths = vae.config.block_out_channels
    if all(width == GROUP * vae.config.norm_num_groups for width in (widths[0], widths[-1])):
        encoder, decoder = vae.encoder, vae.decoder
        for half, values, last in (
            (encoder, vae.config.in_channels, encoder.mid_block.resnets[-1]),
            (decoder, vae.config.latent_channels, decoder.up_blocks[-1].resnets[-1]),
        ):
            _carry(half.conv_in, values)
            last.conv2.bias[1::GROUP], last.conv2.bias[2::GROUP] = CARRIER, -CARRIER
            _give(half.conv_norm_out, half.conv_out, vae.config.in_channels)
        for conv in (vae.quant_conv, vae.post_quant_conv):
            nn.init.dirac_(conv.weight)
            nn.init.zeros_(conv.bias)
    nn.init.constant_(vae.quant_conv.bias[vae.config.latent_channels :], LOG_VARIANCE)
    return vae


def _carry(conv: nn.Conv2d, values: int):
    """The first groups carry the channels that come in, the others what a random convolution finds in them."""
    weight = conv.weight.clone() * DETAIL
    middle = conv.kernel_size[0] // 2
    weight[: GROUP * values] = 0
    for value in range(values):
        weight[GROUP * value, value, middle, middle] = 1
    weight[1::GROUP] = weight[2::GROUP] = -weight[0::GROUP] / 2
    conv.weight.copy_(weight)
    nn.init.zeros_(conv.bias)


def _give(norm: nn.GroupNorm, conv: nn.Conv2d, values: int):
    """The values of the first groups go out as they are; of the others a little goes out of every channel but these."""
    deviation = CARRIER * (2 / 3) ** 0.5
    norm.weight[0::GROUP], norm.bias[0::GROUP] = deviation, 0
    norm.weight[1::GROUP], norm.bias[1::GROUP] = 2 * deviation, -2 * CARRIER
    norm.weight[2::GROUP], norm.bias[2::GROUP] = 2 * deviation, 2 * CARRIER
    middle = conv.kernel_size[0] // 2
    conv.weight[:values] = 0
    nn.init.zeros_(conv.bias)
    for value in range(values):
        conv.weight[value, GROUP * value, middle, middle] = 1
        conv.weight[value, GROUP * value + 1, middle, middle] = -1
