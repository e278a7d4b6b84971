"""Tells models apart by a sample of their weights, in the precision that they are loaded in."""

from __future__ import annotations

import hashlib

import torch
from comfy.model_patcher import ModelPatcher
from torch.utils._pytree import tree_flatten

SAMPLES = 16


def fingerprint(patcher: ModelPatcher) -> str:
    """A hash over names, shapes and sixteen values of each weight, and over what is patched onto them, such as a LoRA."""
    hasher = hashlib.sha256()
    unpatched = {name: backup.weight for name, backup in patcher.backup.items()}  # while a LoRA is in the model's weights
    for name, tensor in sorted({**patcher.model.state_dict(), **unpatched}.items()):
        if not name.startswith("model_sampling."):  # another node's patch may lie there, and encoding does not use it
            _add(hasher, name, tensor)
    for name, patches in sorted(patcher.patches.items(), key=lambda item: str(item[0])):
        for strength, patch, *_ in patches:
            hasher.update(f"{name} {strength}".encode())
            for leaf in tree_flatten(getattr(patch, "weights", patch))[0]:
                if isinstance(leaf, torch.Tensor):
                    _add(hasher, "", leaf)
    return hasher.hexdigest()[:16]


def fingerprint_of_tensor(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _add(hasher, name: str, tensor: torch.Tensor):
    hasher.update(f"{name} {tuple(tensor.shape)}".encode())
    values = tensor.reshape(-1)
    values = values[:: max(1, values.numel() // SAMPLES)][:SAMPLES]
    hasher.update(values.to("cpu", torch.float32).numpy().tobytes())
