"""What is read of ComfyUI beyond its public API, and read nowhere else. All of it is in 0.16.3 to 0.30.0, but for what says
otherwise.

unet: where a U-Net's blocks are, and what tells U-Nets apart
sampling: what a run of the sampler and a call of the U-Net in it are about
alone: a U-Net called by itself
changes: what other nodes changed on a model
vae: what kind of latents a VAE gives
warnings: how a node that runs is told something about
edit: where edit models have the tokens of their references, and how they are carried there
"""
