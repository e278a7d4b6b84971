"""Reads a model's files: configurations and tensors, and nothing that could run or grow. Downloads nothing."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zipfile

import comfy.utils
import safetensors
import safetensors.torch
import torch

_LFS_POINTER = b"version https://git-lfs"


def read_json(path: str, mend: str) -> dict:
    """A configuration.

    mend: for the error, what to do
    raises: FileNotFoundError, ValueError for what is no JSON object
    """
    try:
        with open(path, encoding="utf-8") as f:
            config = json.load(f)
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing. {mend}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not valid JSON ({error}). {mend}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}, expected an object in braces. {mend}")
    return config


def read_tensors(path: str, mend: str) -> dict[str, torch.Tensor]:
    """The tensors of a file, as safetensors, or else by torch's weights-only loading, which takes tensors and plain values.

    raises: ValueError for a file that is truncated, holds more than tensors by name, or unfolds to more than its size
    """
    size = os.path.getsize(path)
    head = require_downloaded(path)
    if zipfile.is_zipfile(path) and _unpacked_size(path) > size:
        raise ValueError(f"{path} unpacks to more than its {size} bytes and was not opened. {mend}")
    try:
        # The release's decoupled_attn.pth is a safetensors file, so the name does not tell. Such a file begins with the
        # length of its header, 8 bytes, and the header's brace.
        if head[8:9] == b"{" and not path.endswith(".safetensors"):
            return safetensors.torch.load_file(path)
        tensors = comfy.utils.load_torch_file(path, safe_load=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than tensors and was not opened. {mend}") from error
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, IndexError, TypeError):  # the host looks for a dictionary in it
        tensors = None
    except (safetensors.SafetensorError, ValueError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(f"{path} cannot be read ({error}). It may be cut short. {mend}") from error
    if not isinstance(tensors, dict) or not all(isinstance(name, str) and _is_plain(each) for name, each in tensors.items()):
        raise ValueError(f"{path} holds something else than plain tensors by their names. {mend}")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > size:
        raise ValueError(f"{path} holds tensors that are larger than its {size} bytes, by repeating their values. {mend}")
    return tensors


def require_downloaded(path: str) -> bytes:
    """The first bytes of a file. raises: ValueError for the pointer of a Git LFS file"""
    with open(path, "rb") as f:
        head = f.read(len(_LFS_POINTER))
    if head == _LFS_POINTER:
        folder = os.path.dirname(path)
        raise ValueError(f"{path} is only the pointer of a Git LFS file: run `git lfs pull` in {folder}, or download it.")
    return head


def require_number(
    path: str, config: dict, name: str, least: float, most: float, count: int | None = None, whole: bool = True
):
    """Checks a number of a configuration, or a list of them.

    count: how many there must be in a list; None: a number, not a list
    raises: ValueError
    """
    value = config.get(name)
    values = [value] if count is None else value
    kinds = (int,) if whole else (int, float)
    if not isinstance(values, list) or len(values) != (count or 1) or not all(
        isinstance(each, kinds) and not isinstance(each, bool) and least <= each <= most for each in values
    ):
        what = ("a" if count is None else str(count)) + (" whole" if whole else "") + " number" + ("s" if count else "")
        raise ValueError(f"{path}: {name} is {_shown(value)}, expected {what} from {least} to {most}.")


def require_fit(path: str, config: dict, weights: dict[str, int | list[int]], mend: str):
    """Compares a configuration with what the weights tell of it, by name. raises: ValueError"""
    for name, value in weights.items():
        if config.get(name) != value:
            given = _shown(config.get(name))
            raise ValueError(f"{path}: {name} is {given}, but the weights beside it are made for {value}. {mend}")


def _shown(value) -> str:
    text = "missing" if value is None else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _unpacked_size(path: str) -> int:
    with zipfile.ZipFile(path) as file:
        return sum(entry.file_size for entry in file.infolist())


def _is_plain(tensor) -> bool:
    return isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided and not tensor.is_quantized
