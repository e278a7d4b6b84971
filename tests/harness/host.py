"""The real ComfyUI in this process, with the pack loaded as the host loads it. COMFYUI_PATH says where it is."""

from __future__ import annotations

import asyncio
import atexit
import os
import sys
import tempfile
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden"


def start_host(cpu: bool, pytorch_attention: bool = False, models: Path | None = None) -> ModuleType:
    """Returns the pack. It can be imported as `parts2whole` too, since the host's name for it is a path.

    pytorch_attention: PyTorch's instead of the host's own, which it takes on a CPU: much faster there, and a GPU's default
    models: one more folder to look for checkpoints in
    raises: RuntimeError where the host cannot load the pack
    """
    # The host's first: our folder `nodes` has the name of a module of its own.
    sys.path[:0] = [os.environ["COMFYUI_PATH"], str(ROOT / "tests"), str(ROOT)]
    import comfy.cli_args

    comfy.cli_args.args.cpu = cpu
    comfy.cli_args.args.use_pytorch_cross_attention = pytorch_attention
    import comfy.utils
    import folder_paths
    import utils.extra_config  # noqa: F401  first, as in main.py: nodes.py puts comfy/ in front, where another `utils` lies

    comfy.utils.PROGRESS_BAR_ENABLED = False  # a bar for each of hundreds of pictures
    # Not the user's: the pack puts example pictures there.
    inputs = tempfile.TemporaryDirectory()
    atexit.register(inputs.cleanup)
    folder_paths.set_input_directory(inputs.name)
    _load(ROOT, "custom_nodes")
    load_core_nodes("nodes_custom_sampler")
    if models:
        folder_paths.add_model_folder_path("parts2whole", str(models.resolve()))

    pack = sys.modules[str(ROOT).replace(".", "_x_")]  # the host's name for it
    for name in [name for name in sys.modules if name == pack.__name__ or name.startswith(pack.__name__ + ".")]:
        sys.modules["parts2whole" + name.removeprefix(pack.__name__)] = sys.modules[name]
    return pack


def load_core_nodes(*modules: str):
    """Loads further nodes of the host's own, by the names of their files in comfy_extras."""
    for module in modules:
        _load(Path(os.environ["COMFYUI_PATH"], "comfy_extras", f"{module}.py"), "comfy_extras")


def _load(path: Path, parent: str):
    import nodes

    if not asyncio.run(nodes.load_custom_node(str(path), module_parent=parent)):
        raise RuntimeError(f"ComfyUI could not load {path}.")


def our_nodes() -> dict[str, type]:
    """The pack's nodes by their ids."""
    import nodes

    return {id: node for id, node in nodes.NODE_CLASS_MAPPINGS.items() if id.startswith("Parts2Whole")}


def call_node(name: str, **inputs) -> tuple:
    """Runs a node, as the host would, and returns its outputs."""
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS[name]
    outputs = node.execute(**inputs) if hasattr(node, "execute") else getattr(node(), node.FUNCTION)(**inputs)
    return tuple(getattr(outputs, "result", outputs))
