from __future__ import annotations

from comfy_api.latest import io

from .node import Node
from .sockets import APPLY, LevelsSocket

PRESETS = {"all": (1.0,), "structure": (0.0, 0.3, 1.0, 1.0), "texture": (1.0, 1.0, 0.3, 0.0)}


class Parts2WholeLevels(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLevels",
            display_name="Strength by Depth",
            category=APPLY,
            description="How strongly parts act at each depth of the U-Net: deep layers carry structure, shallow ones texture.",
            search_aliases=["block weight", "layer weight", "structure", "texture"],
            inputs=[
                io.Combo.Input(
                    "preset", options=list(PRESETS), default="all",
                    tooltip="structure: 0, 0.3, 1, 1. texture: 1, 1, 0.3, 0. From the finest tokens, of 8 pixels, to "
                    "the coarsest, of 64.",
                ),
                io.String.Input(
                    "custom", default="", optional=True, advanced=True,
                    tooltip="Factors of your own, 0..10, from the finest tokens on, for example '1, 1, 0.5, 0'. The last holds "
                    "for all greater depths. Used instead of the preset unless it is empty.",
                ),
            ],
            outputs=[LevelsSocket.Output(display_name="LEVELS", tooltip="For Apply Parts2Whole.")],
        )

    @classmethod
    def execute(cls, preset, custom="") -> io.NodeOutput:
        return io.NodeOutput(_read(custom) if custom.strip() else PRESETS[preset])


def _read(custom: str) -> tuple[float, ...]:
    try:
        factors = tuple(float(factor) for factor in custom.split(","))
    except ValueError:
        factors = ()
    if not factors or not all(0 <= factor <= 10 for factor in factors):
        raise ValueError(f"Strength by Depth got '{custom}': expected numbers in 0..10 with commas between: '1, 1, 0.5, 0'.")
    return factors
