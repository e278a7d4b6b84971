"""The real ComfyUI in this process, with the pack loaded as the host loads it. COMFYUI_PATH says where it is."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def start_host(models: Path | None = None):
    """models: one more folder to look for checkpoints in. raises: RuntimeError where the host cannot load the pack"""
    path = Path(os.environ["COMFYUI_PATH"])
    sys.path.insert(0, str(path))
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.use_pytorch_cross_attention = True  # much faster on a CPU, and a GPU's default
    import comfy.utils
    import folder_paths
    import utils.extra_config  # noqa: F401  first, as in main.py: nodes.py puts comfy/ in front, where another `utils` lies

    import nodes  # isort: skip

    comfy.utils.PROGRESS_BAR_ENABLED = False  # a bar for each of hundreds of pictures
    # Not the user's: the pack puts example pictures there.
    inputs = tempfile.TemporaryDirectory()
    atexit.register(inputs.cleanup)
    folder_paths.set_input_directory(inputs.name)

    for folder, parent in ((ROOT, "custom_nodes"), (path / "comfy_extras" / "nodes_custom_sampler.py", "comfy_extras")):
        if not asyncio.run(nodes.load_custom_node(str(folder), module_parent=parent)):
            raise RuntimeError(f"ComfyUI could not load {folder}.")
    if models:
        folder_paths.add_model_folder_path("parts2whole", str(models.resolve()))


def call_node(name: str, **inputs) -> tuple:
    """Runs a node, as the host would, and returns its outputs."""
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS[name]
    outputs = node.execute(**inputs) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(**inputs)
    return tuple(getattr(outputs, "result", outputs))
