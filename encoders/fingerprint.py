"""Tells models apart: by a sample of their weights, in the precision that they are loaded in, and by what other nodes added."""

from __future__ import annotations

import functools
import hashlib
import types
import uuid
import weakref
from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch.utils._pytree import tree_flatten

from ..attention.patch.host.changes import (
    WeightPatch,
    adapter,
    bypass,
    forced_hooks,
    injection,
    other_changes,
    own_weights,
    weight_patches,
)

SAMPLES = 16
# In a fingerprint: the model holds something that is not known by its value, so no other run of ComfyUI gives the same.
ONLY_THIS_RUN = "~"
# What the pack itself keeps in a model's options acts in a run of the sampler only.
_OURS = "parts2whole"
_identities: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def fingerprint(patcher: ModelPatcher) -> str:
    """A hash over all that decides what the model computes.

    These are names, shapes and sixteen values of each weight, what is patched onto weights, such as a LoRA, and what else nodes
    change: objects, weight wrappers, injections, forced hooks, and patches of attention and blocks. Functions count by their code
    and what they enclose; what has no value to compare counts as itself, and the fingerprint ends in ONLY_THIS_RUN.
    """
    digest = _Digest()
    for name, tensor in sorted(own_weights(patcher).items()):
        if not name.startswith("model_sampling."):  # another node's patch may lie there, and encoding does not use it
            digest.add_tensor(name, tensor)
    digest.add_weight_patches(weight_patches(patcher))
    for name, value in _leaves(other_changes(patcher), ""):
        digest.add_text(name)
        digest.add_value(value)
    for strength, patches in forced_hooks(patcher):
        digest.add_text(f"hook {strength}")
        digest.add_weight_patches(patches)
    return digest.hasher.hexdigest()[:16] + ("" if digest.lasts else ONLY_THIS_RUN)


def fingerprint_of_tensor(tensor: torch.Tensor) -> str:
    return hashlib.sha256(tensor.float().cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


def _leaves(value, name: str) -> Iterator[tuple[str, Any]]:
    """What is in nested dictionaries and lists, without what the pack put there. Nothing for empty ones."""
    if isinstance(value, dict):
        for key, each in sorted(value.items(), key=lambda item: str(item[0])):
            if not str(key).startswith(_OURS):
                yield from _leaves(each, f"{name}/{key}")
    elif isinstance(value, (list, tuple)):
        for i, each in enumerate(value):
            yield from _leaves(each, f"{name}/{i}")
    else:
        yield name, value


class _Digest:
    """lasts: whether another run of ComfyUI would give the same"""

    def __init__(self):
        self.hasher, self.lasts, self._inside = hashlib.sha256(), True, set()

    def add_text(self, text: str):
        self.hasher.update(text.encode())

    def add_tensor(self, name: str, tensor: torch.Tensor):
        self.add_text(f"{name} {tuple(tensor.shape)}")
        values = tensor.reshape(-1)
        values = values[:: max(1, values.numel() // SAMPLES)][:SAMPLES]
        self.hasher.update(values.to("cpu", torch.float32).numpy().tobytes())

    def add_weight_patches(self, patches: dict[str, list[WeightPatch]]):
        for name, each in sorted(patches.items(), key=lambda item: str(item[0])):
            for patch in each:
                self.add_text(f"{name} {patch.strength}")
                self.add_adapter(patch.patch)
                rest = patch.strength_model, patch.offset, patch.function
                if rest != (1.0, None, None):
                    self.add_value(rest)

    def add_adapter(self, patch, dtype: torch.dtype | None = None):
        """dtype: in which precision its tensors act; None: in their own"""
        kind, tensors = adapter(patch)
        if kind != "lora":
            self.add_text(kind)
        for leaf in tree_flatten(tensors)[0]:
            if isinstance(leaf, torch.Tensor):
                self.add_tensor("", leaf if dtype is None else leaf.to(dtype))
            elif leaf is not None and leaf != "diff":
                self.add_value(leaf)

    def add_value(self, value):
        if id(value) in self._inside:  # a function that encloses itself
            return
        self._inside.add(id(value))
        self.add_text(f" {type(value).__name__} ")
        if value is None or isinstance(value, (bool, int, float, complex, str, bytes, torch.dtype, torch.device)):
            self.add_text(repr(value))
        elif isinstance(value, torch.Tensor):
            self.add_tensor("", value)
        elif isinstance(value, torch.nn.Module):
            self.add_text(type(value).__qualname__)
            for name, tensor in sorted(value.state_dict().items()):
                self.add_tensor(name, tensor)
        elif isinstance(value, dict):
            self._add_all(part for item in sorted(value.items(), key=lambda item: str(item[0])) for part in item)
        elif isinstance(value, (list, tuple)):
            self._add_all(value)
        elif isinstance(value, (set, frozenset)):
            self._add_all(sorted(value, key=repr))
        elif isinstance(value, (type, types.ModuleType, types.BuiltinFunctionType)):
            self.add_text(f"{getattr(value, '__module__', '')} {value.__name__}")
        elif isinstance(value, types.FunctionType):
            self.add_text(f"{value.__module__} {value.__qualname__}")
            # An empty cell, of a name that is not bound yet, is equal only to another empty one.
            cells = [cell.cell_contents for cell in value.__closure__ or () if cell != types.CellType()]
            self._add_all((value.__code__, value.__defaults__, value.__kwdefaults__, *cells))
        elif isinstance(value, types.CodeType):
            self._add_all((value.co_code, value.co_names, value.co_consts))
        elif isinstance(value, types.MethodType):
            self._add_all((value.__func__, value.__self__))
        elif isinstance(value, functools.partial):
            self._add_all((value.func, value.args, value.keywords))
        elif (calls := injection(value)) is not None:
            self._add_all(calls)
        elif (beside := bypass(value)) is not None:
            for name, strength in beside.strengths:
                self.add_text(f"{name} {strength}")
            for patch, dtype in beside.adapters:
                self.add_adapter(patch, dtype if dtype in (torch.float32, torch.float16, torch.bfloat16) else None)
        else:
            self.lasts = False
            self.add_text(_identity(value))
        self._inside.remove(id(value))

    def _add_all(self, values):
        for value in values:
            self.add_value(value)


def _identity(value) -> str:
    """A name for this object in this run, and for no other."""
    try:
        return _identities.setdefault(value, uuid.uuid4().hex)
    except TypeError:  # it cannot be remembered: another name each time
        return uuid.uuid4().hex
