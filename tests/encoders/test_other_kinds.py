"""Sockets of the right type with something of another kind in them: words before any work."""

import comfy.clip_vision
import comfy.sd
import pytest
import torch
from comfy.ldm.models.autoencoder import AutoencoderKL
from harness.workbench import apply_image_attention, apply_pose, encode, golden_parts


def vae_of(channels):
    """A VAE of pictures of the host's own, of 32 channels, with random weights."""
    ddconfig = {
        "double_z": True, "z_channels": channels, "resolution": 32, "in_channels": 3, "out_ch": 3, "ch": 32,
        "ch_mult": [1, 1, 1, 1], "num_res_blocks": 0, "attn_resolutions": [], "dropout": 0.0,
    }
    weights = AutoencoderKL(ddconfig=ddconfig, embed_dim=channels).state_dict()
    vae = comfy.sd.VAE(sd=weights, config={"params": {"ddconfig": ddconfig, "embed_dim": channels}})
    vae.latent_channels = channels  # the host sets it where it reads the kind of a VAE from its weights
    return vae


@pytest.fixture
def no_work(monkeypatch):
    """Nothing is loaded to be run."""
    import comfy.model_management

    def load(*args, **options):
        raise AssertionError("work was begun")

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)


def test_a_vae_of_sixteen_channels(checkpoint, parts, no_work):
    with pytest.raises(ValueError, match="VAE gives latents of 16 channels, but the appearance encoder takes 4. Connect the VAE"):
        encode(checkpoint._replace(vae=vae_of(16)), parts)


@pytest.mark.parametrize("attributes, kind", [
    ({"latent_dim": 3, "latent_channels": 16}, "videos"), ({"latent_dim": 1, "latent_channels": 64}, "sound"),
    ({"extra_1d_channel": 16, "latent_channels": 8}, "sound"),
])
def test_a_vae_of_videos_or_sound(checkpoint, parts, attributes, kind, no_work):
    vae = vae_of(4)
    for name, value in attributes.items():  # as the host sets them for such VAEs, which are too large for a test
        setattr(vae, name, value)
    with pytest.raises(ValueError, match=f"VAE is one for {kind}, with latents of {attributes['latent_channels']} channels"):
        encode(checkpoint._replace(vae=vae), parts)


def test_a_vae_of_a_checkpoint_that_has_none(checkpoint, parts, no_work):
    with pytest.raises(ValueError, match="The VAE is empty.*Connect the VAE"):
        encode(checkpoint._replace(vae=comfy.sd.VAE(sd={"unrelated": torch.zeros(1)})), parts)


@pytest.mark.parametrize("count", [64, 256])
def test_a_clip_that_is_none(checkpoint, no_work, count):
    class T5:
        """The CLIP of a model whose text encoder is a T5, as far as its tokens go."""

        def tokenize(self, text):
            return {"t5xxl": [[(0, 1.0)] * count]}

    with pytest.raises(ValueError, match=f"reads {count} tokens at once with its text encoder 't5xxl', expected 77"):
        golden_parts(T5(), 1)


def clip_vision(**config):
    plain = {
        "model_type": "clip_vision_model", "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "hidden_act": "gelu",
        "num_attention_heads": 2, "num_channels": 3, "image_size": 64, "patch_size": 32, "projection_dim": 32,
    }
    return comfy.clip_vision.ClipVisionModel({**plain, **config})


@pytest.mark.parametrize("config, message", [
    ({"model_type": "siglip_vision_model"}, "CLIP_VISION is a siglip_vision_model, expected a CLIP vision model"),
    ({"projection_dim": 48}, "CLIP_VISION gives tokens of 48 channels, the image attention expects 32"),
])
def test_a_clip_vision_of_another_kind(checkpoint, parts, config, message, no_work):
    with pytest.raises(ValueError, match=f"{message}.*from the same Load Parts2Whole"):
        apply_image_attention(checkpoint.model, checkpoint._replace(clip_vision=clip_vision(**config)), parts)


def test_patchers_of_other_networks(checkpoint, parts, no_work):
    with pytest.raises(ValueError, match="IMAGE_ATTENTION is a PoseNetwork. Take"):
        apply_image_attention(checkpoint.model, checkpoint._replace(image_attention=checkpoint.pose_guider), parts)
    with pytest.raises(ValueError, match="POSE_GUIDER is a ImageAttention: connect"):
        apply_pose(checkpoint.model, checkpoint.image_attention)


def test_its_own_kind_is_taken(checkpoint, parts):
    assert encode(checkpoint._replace(vae=vae_of(4)), parts, 64, 64).references
