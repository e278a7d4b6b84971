"""What kind of latents a VAE gives. What a VAE of another pack does not tell of itself is taken as right."""

from __future__ import annotations

from typing import NamedTuple


class Latents(NamedTuple):
    """of: pictures, sound or videos; channels: None where the VAE does not tell"""

    of: str
    channels: int | None


def latents_of(vae) -> Latents | None:
    """None for a VAE without a network: the host makes one of a checkpoint that holds none."""
    if getattr(vae, "first_stage_model", vae) is None:
        return None
    dimensions = getattr(vae, "latent_dim", 2)
    one_dimensional = getattr(vae, "extra_1d_channel", None) is not None
    of = "pictures" if dimensions == 2 and not one_dimensional else "videos" if dimensions == 3 else "sound"
    return Latents(of, getattr(vae, "latent_channels", None))
