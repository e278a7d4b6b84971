"""Encoded appearances in files, so that an outfit is worn again without its pictures and without encoding."""

from __future__ import annotations

import json
import os
import struct

import comfy.utils
import folder_paths
import safetensors

from ..attention.bank import Appearance, Bank, BlockAddress, Origin, Reference
from ..pictures.model_folders import names_below, path_below
from .appearance import AppearanceEncoder

SUBFOLDER = "wardrobe"
METADATA, VERSION = "parts2whole_appearance", 1


def list_appearances() -> list[str]:
    """Files in output/wardrobe, with their folders there."""
    return names_below([_root()], _is_appearance)


def appearance_path(name: str) -> str:
    """raises: FileNotFoundError that names the folder"""
    return path_below(
        name, [_root()], _is_appearance, "appearance",
        "Put the file there, or make one by Save Appearance, and refresh the editor.",
    )


def save_appearance(appearance: Appearance, path: str):
    """Writes the banks of all references as safetensors, with their labels and origins. The file is there whole or not at all."""
    tensors, references = {}, []
    for i, reference in enumerate(appearance.references):
        for address, bank in reference.banks.items():
            tensors[f"{i}.{_name(address)}"] = bank.tokens.cpu().clone()  # one reference may be there twice
        references.append({
            "label": reference.label, "context_channels": reference.context_channels,
            "removed": {_name(address): bank.removed for address, bank in reference.banks.items()},
            **reference.origin._asdict(),
        })
    part = f"{path}.part"
    comfy.utils.save_torch_file(tensors, part, metadata={METADATA: json.dumps({"version": VERSION, "references": references})})
    os.replace(part, path)


def load_appearance(path: str, encoder: AppearanceEncoder | None = None) -> Appearance:
    """Reads what `save_appearance` wrote.

    encoder: that of the workflow; None: any
    raises: ValueError for another kind of file, a damaged one, and one that was made by another encoder
    """
    try:
        tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
        if METADATA not in (metadata or {}):
            raise ValueError("it is a safetensors file, but no appearance: take one that Save Appearance wrote")
        described = json.loads(metadata[METADATA])
        if described["version"] != VERSION:
            raise ValueError(f"it has format {described['version']}, and this pack reads {VERSION}")
        references = tuple(
            Reference(
                reference["label"],
                {_address(name): Bank(tensors[f"{i}.{name}"], removed) for name, removed in reference["removed"].items()},
                reference["context_channels"],
                Origin(reference["encoder"], reference["vae"], reference["text"], tuple(reference["frame"])),
            )
            for i, reference in enumerate(described["references"])
        )
    except (safetensors.SafetensorError, ValueError, RuntimeError, KeyError, struct.error) as error:
        raise ValueError(f"{path} cannot be read ({error}). Save the appearance again, or take another file.") from error
    for reference in references:
        if encoder is not None and reference.origin.encoder != encoder.fingerprint:
            raise ValueError(
                f"The part '{reference.label}' in {path} was encoded by another appearance encoder ({reference.origin.encoder}; "
                f"connected: {encoder.fingerprint}), or by the same in another precision. The MODEL would not understand its "
                "features: load the checkpoint that it was encoded with, or encode its picture again."
            )
    return Appearance(references)


def _root() -> str:
    return os.path.join(folder_paths.get_output_directory(), SUBFOLDER)


def _is_appearance(path: str) -> bool:
    return path.endswith(".safetensors") and os.path.isfile(path)


def _name(address: BlockAddress) -> str:
    return ".".join(str(value) for value in address)


def _address(name: str) -> BlockAddress:
    block, number, index = name.split(".")
    return BlockAddress(block, int(number), int(index))
