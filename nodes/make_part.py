from __future__ import annotations

from comfy_api.latest import io

from ..pictures.part import make_part
from .node import Node
from .sockets import PARTS, PartSocket, label_inputs


class Parts2WholeMakePart(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeMakePart",
            display_name="Part from Image",
            category=PARTS,
            description="Makes a part from an image of the graph. A batch is several pictures of the same part.",
            search_aliases=["reference part", "image to part", "reference", "face", "clothes", "character", "参考", "衣服"],
            inputs=[
                io.Image.Input("image", tooltip="One picture of the part, or a batch. Three channels, or four with alpha."),
                *label_inputs(),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="1 where the picture shows the part; any size. Without one: the image's alpha, or all of it. "
                    "The MASK of Load Image is the inverse of alpha: invert it for a cut-out.",
                ),
            ],
            outputs=[PartSocket.Output(display_name="PART")],
        )

    @classmethod
    def execute(cls, image, label, custom_label="", mask=None) -> io.NodeOutput:
        return io.NodeOutput(make_part(custom_label.strip() or label, image, mask))

    @classmethod
    def validate_inputs(cls, label=None) -> bool:
        # Naming `label` here lets any text through over the API, not only the list's.
        return True
