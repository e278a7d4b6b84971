"""What all nodes of this pack have in common: whatever comes in by a socket, or as a text, is checked before a node's own work."""

from __future__ import annotations

import inspect
import numbers
from collections.abc import Callable
from functools import partial, wraps
from typing import Any, get_args, get_origin

import torch
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..attention.patch.host.warnings import UI, said_now

# What the host's sockets carry, told by what the nodes here call: other packs put classes of their own in.
_CARRIES: dict[str, Callable[[Any], bool]] = {
    "MODEL": lambda value: isinstance(value, ModelPatcher),
    "CLIP": lambda value: hasattr(value, "tokenize"),
    "VAE": lambda value: hasattr(value, "encode") and not isinstance(value, str),
    "CLIP_VISION": lambda value: hasattr(value, "encode_image"),
    "IMAGE": lambda value: (
        isinstance(value, torch.Tensor) and value.ndim == 4 and value.shape[-1] in (3, 4) and value.numel() > 0
    ),
    "MASK": lambda value: isinstance(value, torch.Tensor) and value.ndim in (2, 3, 4),
    "CONDITIONING": lambda value: isinstance(value, list) and all(
        isinstance(each, (list, tuple)) and len(each) > 1 and isinstance(each[1], dict) for each in value
    ),
    "LATENT": lambda value: isinstance(value, dict) and isinstance(value.get("samples"), torch.Tensor),
}
_EXPECTED = {"IMAGE": "IMAGE, one picture or more of shape [B, H, W, 3 or 4]"}
_SHOWN = 40


class Node(io.ComfyNode):
    """A node whose `execute` only sees inputs that it has, of the kind that their sockets carry, and that shows its warnings.

    The host checks links between nodes, but takes plain values, wildcard outputs and links to unknown inputs as they are; numbers
    that come by a link, also beyond their limits; and texts, where a node checks them itself.
    """

    # The editor is shown again what it showed when it comes from the cache (0.20.1 and newer); it is no node to end a graph with.
    HAS_INTERMEDIATE_OUTPUT = True

    def __init_subclass__(cls, **keywords):
        super().__init_subclass__(**keywords)
        execute = cls.__dict__.get("execute")
        if execute is not None and not hasattr(execute.__func__, "__wrapped__"):  # the host copies classes
            cls.execute = classmethod(_checked(execute.__func__))


def _checked(execute: Callable) -> Callable:
    known = inspect.signature(execute).parameters

    @wraps(execute)
    def checked(cls, **inputs):
        schema = cls.SCHEMA or cls.GET_SCHEMA()
        for name in inputs:
            if name not in known:
                names = ", ".join(each.id for each in schema.inputs)
                raise ValueError(f"{schema.display_name} has no input '{name}': its inputs are {names}.")
        for each in schema.inputs:
            if each.id in inputs:
                for value in _values(each, inputs[each.id], schema.is_input_list):
                    if not isinstance(each, io.WidgetInput):
                        _require(schema.display_name, each, value)
                    elif isinstance(each, (io.Combo.Input, io.String.Input)) and not (isinstance(value, str) or _is_file(each)):
                        raise ValueError(f"{schema.display_name} got {_shown(value)} for '{each.id}'. Give it a text.")
                    elif isinstance(each, (io.Int.Input, io.Float.Input)):
                        _require_number(schema.display_name, each, value)
        return _with_warnings(execute(cls, **inputs))

    return checked


def _with_warnings(output: io.NodeOutput) -> io.NodeOutput:
    """What the node shows, with what it was warned of: the host keeps that with the output, and shows it again from its cache."""
    texts = tuple(said_now() or ())
    if texts or output.ui is not None:  # of a list of inputs, the host wants the same keys each time
        shown = output.ui if isinstance(output.ui, dict) or output.ui is None else output.ui.as_dict()
        output.ui = {**(shown or {}), UI: texts}
    return output


def _is_file(widget: io.WidgetInput) -> bool:
    """Whether it names a file of the input folder, which its node looks for by itself."""
    return bool(getattr(widget, "upload", None))


def _values(socket: io.Input, value: Any, is_list: bool) -> list:
    """Each single value of an input that may be a list, or slots that grow."""
    values = value if is_list and isinstance(value, list) else [value]
    if isinstance(socket, io.Autogrow.Input):
        values = [single for each in values for single in (each.values() if isinstance(each, dict) else [each])]
    return values


def _require(node: str, socket: io.Input, value: Any):
    if isinstance(socket, io.Autogrow.Input):
        socket, optional = socket.template.input, True
    else:
        optional = socket.optional
    if value is None and optional:
        return
    kind = socket.get_io_type()
    carries = _CARRIES.get(kind) or partial(_is, getattr(socket.Parent, "Type", None))
    if not carries(value):
        what = "nothing: the node that is connected has none to give" if value is None else _shown(value)
        raise ValueError(
            f"{node} got {what} for '{socket.id}'. Connect the output of a node that gives {_EXPECTED.get(kind, kind)}. "
            f"{socket.tooltip or ''}"
        )


def _require_number(node: str, widget: io.Int.Input | io.Float.Input, value: Any):
    """NaN lies within no limits."""
    whole = isinstance(widget, io.Int.Input)
    kind = numbers.Integral if whole else numbers.Real
    if isinstance(value, bool) or not isinstance(value, kind) or not widget.min <= value <= widget.max:
        raise ValueError(
            f"{node} got {_shown(value)} for '{widget.id}'. Give it a {'whole ' * whole}number from {widget.min} to {widget.max}."
        )


def _is(expected: Any, value: Any) -> bool:
    """expected: the type that a socket of ours names, a tuple of any number of these, or several such types of which it is one"""
    if isinstance(expected, tuple):
        return value != () and any(_is(each, value) for each in expected)
    if get_origin(expected) is tuple:
        return isinstance(value, tuple) and all(isinstance(each, get_args(expected)[0]) for each in value)
    return not isinstance(expected, type) or isinstance(value, expected)


def _shown(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {list(value.shape)}"
    text = repr(value) if isinstance(value, (bool, int, float, str)) else type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
