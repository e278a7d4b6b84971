"""Networks that are not built of the host's own layers, through the host's memory management."""

from __future__ import annotations

from itertools import chain

import comfy.model_management
import comfy.model_patcher
import torch


def load_whole(network: torch.nn.Module, device: torch.device, memory: float = 0) -> comfy.model_patcher.ModelPatcher:
    """Loads a network, which the host may unload as soon as the returned handle is gone.

    Whole: the host only splits networks between devices whose layers are its own. It would leave what does not fit of others
    where it is, and their inputs would lie on another device.

    memory: bytes that its use takes beside its weights
    """
    patcher = comfy.model_patcher.ModelPatcher(
        # In a module of our own: the host sets attributes of it, which a model of transformers and TorchScript refuse.
        torch.nn.ModuleList([network]), load_device=device, offload_device=comfy.model_management.unet_offload_device(),
    )
    comfy.model_management.load_models_gpu([patcher], memory_required=memory, force_full_load=True)
    return patcher


def device_of(patcher: comfy.model_patcher.ModelPatcher) -> torch.device:
    """Where a network lies: with --novram the host leaves it where it was, and a frozen TorchScript module cannot be moved."""
    tensors = chain(patcher.model.parameters(), patcher.model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))
