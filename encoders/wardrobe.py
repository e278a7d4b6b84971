"""Encoded appearances in files, so that an outfit is worn again without its pictures and without encoding."""

from __future__ import annotations

import json
import os

import comfy.utils
import folder_paths
import safetensors

from ..attention.bank import Appearance, Bank, BlockAddress, Origin, Reference
from .appearance_encoder import AppearanceEncoder

FOLDER = "parts2whole_wardrobe"
SUBFOLDER = "wardrobe"
METADATA, VERSION = "parts2whole_appearance", 1


def register_folder():
    """Makes output/wardrobe one of the host's folders."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.get_output_directory(), SUBFOLDER))


def list_appearances() -> list[str]:
    return [name for name in folder_paths.get_filename_list(FOLDER) if name.endswith(".safetensors")]


def appearance_path(name: str) -> str:
    """raises: FileNotFoundError that names the folder"""
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise FileNotFoundError(
            f"No appearance '{name}' in {' or '.join(folder_paths.get_folder_paths(FOLDER))}. Put the file there, or make one by "
            "Save Appearance, and refresh the editor."
        )
    return path


def save_appearance(appearance: Appearance, path: str):
    """Writes the banks of all references as safetensors, with their labels and origins. The file is there whole or not at all."""
    tensors, references = {}, []
    for i, reference in enumerate(appearance.references):
        for address, bank in reference.banks.items():
            tensors[f"{i}.{_name(address)}"] = bank.tokens.cpu().contiguous()
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
    except (safetensors.SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} cannot be read ({error}). It may be cut short: save the appearance again.") from error
    if METADATA not in (metadata or {}):
        raise ValueError(f"{path} is a safetensors file, but no appearance: take one that Save Appearance wrote.")
    described = json.loads(metadata[METADATA])
    if described["version"] != VERSION:
        raise ValueError(f"{path} has format {described['version']}, and this pack reads {VERSION}: save the appearance again.")
    references = []
    for i, reference in enumerate(described["references"]):
        banks = {_address(name): Bank(tensors[f"{i}.{name}"], removed) for name, removed in reference["removed"].items()}
        origin = Origin(reference["encoder"], reference["vae"], reference["text"], tuple(reference["frame"]))
        if encoder is not None and origin.encoder != encoder.fingerprint:
            raise ValueError(
                f"The part '{reference['label']}' in {path} was encoded by another appearance encoder ({origin.encoder}; "
                f"connected: {encoder.fingerprint}), whose features the MODEL would not understand. Load the checkpoint that it "
                "was encoded with, or encode its picture again."
            )
        references.append(Reference(reference["label"], banks, reference["context_channels"], origin))
    return Appearance(tuple(references))


def _name(address: BlockAddress) -> str:
    return ".".join(str(value) for value in address)


def _address(name: str) -> BlockAddress:
    block, number, index = name.split(".")
    return BlockAddress(block, int(number), int(index))
