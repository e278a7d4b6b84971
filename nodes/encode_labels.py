from __future__ import annotations

from comfy_api.latest import io

from ..encoders.label_embedding import embed_labels
from .node import Node
from .sockets import ENCODE, PartsSocket, gathered, parts_input


class Parts2WholeEncodeLabels(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeEncodeLabels",
            display_name="Encode Part Labels",
            category=ENCODE,
            description="Gathers parts and embeds the label of each with CLIP.",
            search_aliases=["gather parts", "label embedding"],
            inputs=[
                io.Clip.Input("clip", tooltip="The CLIP that belongs to the appearance encoder."),
                parts_input(),
            ],
            outputs=[PartsSocket.Output(display_name="PARTS")],
        )

    @classmethod
    def execute(cls, clip, parts) -> io.NodeOutput:
        return io.NodeOutput(embed_labels(clip, gathered(parts, "Encode Part Labels")))
