"""Trains a small VAE from nothing.

    accelerate launch -m training.train_vae training/configs/paper_doll_vae.yaml
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from .config import VaeConfig, read_config
from .dataset import open_dataset
from .loop import fit
from .networks import load_local
from .vae_start import new_vae


class VaePictures:
    """One picture of each sample, targets and references alike, kept in memory: [3, H, W] in -1..1."""

    def __init__(self, dataset):
        self.dataset, self.drawn = dataset, {}

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> torch.Tensor:
        if index not in self.drawn:
            self.drawn[index] = np.array(self.dataset.picture(index))
        return torch.from_numpy(self.drawn[index]).movedim(-1, 0) / 127.5 - 1


class VaeLoss(torch.nn.Module):
    """Reconstruction of a batch and the divergence of its latents from the standard normal distribution."""

    def __init__(self, vae: AutoencoderKL, config: VaeConfig):
        super().__init__()
        self.vae, self.config = vae, config
        for middle in (vae.encoder.mid_block, vae.decoder.mid_block):
            for attention in middle.attentions:
                attention.requires_grad_(False)
        if config.decoder_only:
            for module in (vae.encoder, vae.quant_conv):
                module.requires_grad_(False)

    def forward(self, pictures: torch.Tensor, generator: torch.Generator) -> dict[str, torch.Tensor]:
        device = next(self.vae.parameters()).device
        if torch.rand((), generator=generator) < self.config.crop_share:
            pictures = self._crops(pictures, generator)
        else:
            pictures = pictures[:1]
        pictures = pictures.to(device)
        posterior = self.vae.encode(pictures).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator).to(device)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        absolute = F.l1_loss(restored, pictures)
        squared = F.mse_loss(restored, pictures)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss = absolute + squared + self.config.kl_weight * divergence
        return {"loss": loss, "l1": absolute, "mse": squared, "kl": divergence}

    def _crops(self, pictures: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        size, (height, width) = self.config.crop, pictures.shape[-2:]
        crops = []
        for i in range(self.config.crops):
            places = []
            for _ in range(self.config.crop_tries):
                top, left = (int(torch.randint(room - size + 1, (), generator=generator)) for room in (height, width))
                places.append(pictures[i % len(pictures), :, top : top + size, left : left + size])
            crops.append(max(places, key=lambda crop: float(crop.std((1, 2)).sum())))
        return torch.stack(crops)


@torch.no_grad()
def save_vae(vae: AutoencoderKL, dataset, folder: Path, scale: bool = True):
    """Writes the VAE in diffusers' layout.

    scale: sets the scaling factor, so that the latents of the dataset have variance 1; else it stays
    """
    if scale:
        pictures = VaePictures(dataset)
        latents = [vae.encode(pictures[i][None].to(vae.device)).latent_dist.mean for i in range(min(16, len(pictures)))]
        scaling_factor = 1 / float(torch.cat(latents).std())
        vae.register_to_config(scaling_factor=round(scaling_factor, 5))
    vae.save_pretrained(folder / "vae", safe_serialization=True)


def main():
    config = read_config(VaeConfig, "Trains a small VAE from nothing.")
    dataset = open_dataset(config.data)
    torch.manual_seed(config.loop.seed)
    vae = load_local(AutoencoderKL, "start", Path(config.start)) if config.start else new_vae(**config.model)
    module = VaeLoss(vae, config)
    shown_pictures = torch.stack([VaePictures(dataset)[i] for i in range(4)])

    def preview(module: VaeLoss) -> dict[str, torch.Tensor]:
        with torch.no_grad():
            shown = shown_pictures.to(module.vae.device)
            restored = module.vae.decode(module.vae.encode(shown).latent_dist.mean).sample.clamp(-1, 1)
        rows = [torch.cat(list(pictures.cpu()), -1) for pictures in (shown, restored)]
        return {"pictures and their reconstructions": torch.cat(rows, -2) / 2 + 0.5}

    def save(module: VaeLoss, folder: Path):
        save_vae(module.vae, dataset, folder, scale=not config.decoder_only)

    fit(module, VaePictures(dataset), torch.stack, config.loop, save, preview)


if __name__ == "__main__":
    main()
