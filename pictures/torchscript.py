"""Loads TorchScript files. Such a file is code by design: it is only loaded where the user put it and named it."""

from __future__ import annotations

import pickletools
import re
import zipfile

import torch

from .model_files import require_downloaded

# What a TorchScript archive's pickles name: its own classes, tensors, and the markers of typed lists.
_NAMED = re.compile(
    r"__torch__\S* \S+|torch\.jit\._pickle \w+|torch\._utils _rebuild_\w+|torch \w+Storage|torch device|collections OrderedDict"
)
# Code is packed, weights are not.
MOST_CODE = 64 * 2**20


def load_torchscript(path: str, mend: str) -> torch.jit.ScriptModule:
    """A TorchScript module in float32, on the CPU.

    mend: for errors, what to do
    raises: ValueError that names the file, for what is none, is cut short, or has a pickle with anything but tensors
    """
    import torchvision  # noqa: F401  its operators, nms for one

    require_downloaded(path)
    _require_tensors_only(path, mend)
    try:
        return torch.jit.load(path, map_location="cpu").float().eval()
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} cannot be loaded ({last_line(error)}). {mend}") from error


def last_line(error: Exception) -> str:
    """What a TorchScript error says: its last line that is not empty; before it stands the file's source."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__


def _require_tensors_only(path: str, mend: str):
    """PyTorch's loader runs nothing of these pickles, but a file that names other things in them was made for another loader."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if not any("/code/" in entry.filename for entry in entries):
                raise ValueError(f"{path} is not a TorchScript file: it holds no code. {mend}")
            if sum(entry.file_size - entry.compress_size for entry in entries) > MOST_CODE:
                raise ValueError(f"{path} unpacks to much more than its size and was not opened. {mend}")
            for entry in entries:
                if entry.filename.endswith("pkl"):
                    _require_known_names(path, archive.read(entry), mend)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is not a TorchScript file, or it is cut short ({error}). {mend}") from error


def _require_known_names(path: str, data: bytes, mend: str):
    try:
        named = [
            argument if code.name == "GLOBAL" else f"({code.name})" for code, argument, _ in pickletools.genops(data)
            if code.name in ("GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4")
        ]
    except Exception as error:  # whatever the bytes make the parser say
        raise ValueError(f"{path} holds a pickle that cannot be read and was not opened. {mend}") from error
    strange = [name for name in named if not _NAMED.fullmatch(name)]
    if strange:
        raise ValueError(f"{path} holds a pickle with more than tensors ({strange[0][:80]}) and was not opened. {mend}")
