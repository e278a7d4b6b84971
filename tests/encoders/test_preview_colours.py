"""Previews while a checkpoint with a VAE of its own samples show its colours."""

import comfy.latent_formats
import latent_preview
import numpy as np
import torch
import torch.nn.functional as F
from harness.host import ROOT
from harness.workbench import run
from parts2whole.encoders.checkpoint.preview_colours import fit_preview_colours
from PIL import Image


def doll(name) -> torch.Tensor:
    picture = Image.open(ROOT / "workflows" / "input" / f"doll_{name}.png").convert("RGB")
    return torch.from_numpy(np.asarray(picture).astype(np.float32) / 255)[None]


def error(latent_format, latents, picture) -> float:
    """Of the host's preview, as a mean difference of values in 0..1."""
    previewer = latent_preview.Latent2RGBPreviewer(latent_format.latent_rgb_factors, latent_format.latent_rgb_factors_bias)
    shown = np.asarray(previewer.decode_latent_to_preview(latents)).astype(np.float32) / 255
    seen = F.avg_pool2d(picture.movedim(-1, 1), 8)[0].movedim(0, -1)
    return float((torch.from_numpy(shown) - seen).abs().mean())


def test_the_dolls_previews_have_the_dolls_colours():
    model, _, vae, *_ = run("Parts2WholeLoader", checkpoint="paper_doll")
    form = model.model.latent_format
    hosts = comfy.latent_formats.SD15(form.scale_factor)
    for name in ("top", "top_2", "face", "trousers"):
        latents = form.process_in(vae.encode(doll(name)))
        assert error(form, latents, doll(name)) < min(0.08, 0.5 * error(hosts, latents, doll(name)))
        assert torch.equal(latents, hosts.process_in(vae.encode(doll(name))))
    assert form.taesd_decoder_name is None, "a small decoder of SD1.5's latents would show others"


def test_sd15s_vae_keeps_the_hosts_colours_and_others_get_the_same_each_time(checkpoint, tmp_path):
    form = checkpoint.model.model.latent_format
    first = form.latent_rgb_factors
    assert first != comfy.latent_formats.SD15().latent_rgb_factors
    form.latent_rgb_factors = None
    fit_preview_colours(str(ROOT / "tests" / "golden" / "checkpoint"), checkpoint.model, checkpoint.vae)
    assert form.latent_rgb_factors == first
    (tmp_path / "vae").mkdir()
    (tmp_path / "vae" / "config.json").write_text('{"block_out_channels": [128, 256, 512, 512], "scaling_factor": 0.18215}')
    form.latent_rgb_factors = None
    fit_preview_colours(str(tmp_path), checkpoint.model, checkpoint.vae)
    assert form.latent_rgb_factors is None
    form.latent_rgb_factors = first
