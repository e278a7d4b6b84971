"""Encoded appearances in files, so that an outfit is worn again without its pictures and without encoding."""

from __future__ import annotations

import json
import os
import re
import struct
import uuid

import comfy.utils
import folder_paths
import safetensors
import torch

from ..attention.bank import Appearance, Bank, BlockAddress, Origin, Reference
from ..attention.patch.host.warnings import warn
from ..pictures.model_folders import choices, names_below, path_below
from ..pictures.part import LONGEST_LABEL, escaped
from ..pictures.thumbnail import is_thumbnail
from .appearance import AppearanceEncoder
from .fingerprint import ONLY_THIS_RUN

SUBFOLDER = "wardrobe"
METADATA, VERSION, THUMBNAIL = "parts2whole_appearance", 1, "thumbnail"
LONGEST_NAME = 200  # bytes: common file systems take 255, and a file that is being written has a longer name
MOST_REFERENCES = 4096
MOST = 1 << 24  # of any number in a file


def list_appearances() -> list[str]:
    """Files in output/wardrobe, with their folders there; or that there are none."""
    return choices(names_below([_root()], _is_appearance), f"output/{SUBFOLDER}")


def appearance_path(name: str) -> str:
    """raises: FileNotFoundError that names the folder"""
    return path_below(
        name, [_root()], _is_appearance, "appearance",
        "Put the file there, or make one by Save Appearance, and refresh the editor.",
    )


def new_path(prefix: str) -> str:
    """Where the next file of this prefix belongs, below the output folder. The folder is made.

    raises: ValueError for a prefix of which no file can be named
    """
    try:
        if "\0" in prefix:
            raise ValueError("it holds a null character")
        folder, name, counter, *_ = folder_paths.get_save_image_path(prefix, folder_paths.get_output_directory())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(
            f"Save Appearance: `filename_prefix` '{escaped(prefix)}' cannot name a file ({why}): take another."
        ) from None
    file = f"{name}_{counter:05}_.safetensors"
    if (size := len(os.fsencode(file))) > LONGEST_NAME:
        raise ValueError(
            f"Save Appearance: the file name that begins with '{escaped(name)}' has {size} bytes, and at most {LONGEST_NAME} fit. "
            "Shorten `filename_prefix`."
        )
    return os.path.join(folder, file)


def save_appearance(appearance: Appearance, path: str):
    """Writes the banks of all references as safetensors, with their labels, origins and small pictures. The file is
    there whole or not at all."""
    tensors, references = {}, []
    for i, reference in enumerate(appearance.references):
        for address, bank in reference.banks.items():
            tensors[f"{i}.{_name(address)}"] = bank.tokens.cpu().clone()  # one reference may be there twice
        if reference.thumbnail is not None:
            tensors[f"{i}.{THUMBNAIL}"] = reference.thumbnail.clone()
        references.append({
            "label": reference.label, "context_channels": reference.context_channels,
            "removed": {_name(address): bank.removed for address, bank in reference.banks.items()},
            **reference.origin._asdict(),
        })
    if any(ONLY_THIS_RUN in reference.origin.encoder for reference in appearance.references):
        warn(
            "the appearance encoder's MODEL was changed by another node in a way that is not recognised after ComfyUI is started "
            f"again. Load Appearance will then refuse {shown_path(path)} with an encoder connected: remove that node before "
            "encoding, or connect none."
        )
    part = f"{path}.{uuid.uuid4().hex}.part"  # nobody can have put a link there
    comfy.utils.save_torch_file(tensors, part, metadata={METADATA: json.dumps({"version": VERSION, "references": references})})
    os.replace(part, path)


def load_appearance(path: str, encoder: AppearanceEncoder | None = None) -> Appearance:
    """Reads what `save_appearance` wrote.

    encoder: that of the workflow; None: any
    raises: ValueError for another kind of file, a damaged one, and one that was made by another encoder
    """
    shown = shown_path(path)
    try:
        tensors, metadata = comfy.utils.load_torch_file(path, safe_load=True, return_metadata=True)
        if METADATA not in (metadata or {}):
            raise ValueError("it is a safetensors file, but no appearance: take one that Save Appearance wrote")
        described = _is(json.loads(metadata[METADATA]), dict, "description")
        if described.get("version") != VERSION:
            raise ValueError(f"it has format {described.get('version')!r:.40}, and this pack reads {VERSION}")
        listed = _is(described.get("references"), list, "list of references")
        if not 0 < len(listed) <= MOST_REFERENCES:
            raise ValueError(f"it has {len(listed)} references, expected 1 to {MOST_REFERENCES}")
        references = tuple(_reference(each, i, tensors) for i, each in enumerate(listed))
    except (safetensors.SafetensorError, ValueError, RuntimeError, RecursionError, struct.error) as error:
        raise ValueError(f"{shown} cannot be read ({error}). Save the appearance again, or take another file.") from error
    for reference in references:
        if encoder is not None and reference.origin.encoder != encoder.fingerprint:
            raise ValueError(
                f"The part '{escaped(reference.label)}' in {shown} was encoded by another appearance encoder "
                f"({escaped(reference.origin.encoder)}; connected: {encoder.fingerprint}), or by the same in another precision. "
                "The MODEL would not understand its features: load the checkpoint that it was encoded with, or encode its picture "
                "again."
            )
    return Appearance(references)


def shown_path(path: str) -> str:
    """A file's path relative to the output folder, for users: where that folder is concerns only the server."""
    return os.path.relpath(path, folder_paths.get_output_directory()).replace(os.sep, "/")


def _reference(described, number: int, tensors: dict[str, torch.Tensor]) -> Reference:
    """Of a file, which may be a stranger's. raises: ValueError that says what is wrong with it"""
    what = f"reference {number}"
    described = _is(described, dict, what)
    label = _is(described.get("label"), str, f"label of {what}")
    if not label.strip() or len(label) > LONGEST_LABEL:
        raise ValueError(f"its label of {what} has {len(label)} characters, expected 1 to {LONGEST_LABEL}")
    context_channels = _whole(described.get("context_channels"), 1, f"context_channels of {what}")
    frame = _is(described.get("frame"), list, f"frame of {what}")
    if len(frame) != 3:
        raise ValueError(f"its frame of {what} has {len(frame)} values, expected width, height and fit")
    width, height, fit = (
        _whole(frame[0], 1, f"width of {what}"), _whole(frame[1], 1, f"height of {what}"), _is(frame[2], str, f"fit of {what}")
    )
    origin = Origin(*(_is(described.get(name), str, f"{name} of {what}") for name in Origin._fields[:3]), (width, height, fit))
    removed = _is(described.get("removed"), dict, f"counts of {what}")
    if not removed:
        raise ValueError(f"its {what} has no features")
    banks = {}
    for name, count in removed.items():
        tokens = tensors.get(f"{number}.{name}")
        if tokens is None:
            raise ValueError(f"'{number}.{escaped(name)}' is missing")
        if tokens.ndim != 2 or not tokens.is_floating_point() or not tokens.shape[1]:
            kind = f"{str(tokens.dtype).removeprefix('torch.')} of shape {list(tokens.shape)}"
            raise ValueError(f"its features {number}.{escaped(name)} are {kind}, expected floats of shape [tokens, channels]")
        if not torch.isfinite(tokens.float()).all():
            raise ValueError(f"its features {number}.{escaped(name)} hold NaN or infinite values")
        count = _whole(count, 0, f"count of removed tokens in {number}.{escaped(name)}")
        if not 0 < len(tokens) + count <= width * height:
            raise ValueError(
                f"its features {number}.{escaped(name)} are of {len(tokens) + count} tokens, in a frame of {width}x{height} pixels"
            )
        banks[_address(name)] = Bank(tokens, count)
    thumbnail = tensors.get(f"{number}.{THUMBNAIL}")  # older files have none
    if thumbnail is not None and not is_thumbnail(thumbnail):
        raise ValueError(f"its picture of {what} has shape {list(thumbnail.shape)}, expected a small one in colours")
    return Reference(label, banks, context_channels, origin, thumbnail)


def _is(value, kind: type, what: str):
    if not isinstance(value, kind):
        raise ValueError(f"its {what} is a {type(value).__name__}, expected a {kind.__name__}")
    return value


def _whole(value, least: int, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= MOST:
        raise ValueError(f"its {what} is {value!r:.40}, expected a whole number from {least} to {MOST}")
    return value


def _root() -> str:
    return os.path.join(folder_paths.get_output_directory(), SUBFOLDER)


def _is_appearance(path: str) -> bool:
    return path.endswith(".safetensors") and os.path.isfile(path)


def _name(address: BlockAddress) -> str:
    return ".".join(str(value) for value in address)


def _address(name: str) -> BlockAddress:
    match = re.fullmatch(r"(input|middle|output)\.(\d{1,4})\.(\d{1,4})", name, re.ASCII)
    if not match:
        raise ValueError(f"its features name no block: '{escaped(name)}'")
    return BlockAddress(match[1], int(match[2]), int(match[3]))
