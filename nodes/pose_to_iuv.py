from __future__ import annotations

from comfy_api.latest import io

from ..pictures.part import require_finite
from ..pictures.pose_kind import to_iuv
from .node import Node
from .sockets import POSE


class Parts2WholePoseToIUV(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePoseToIUV",
            display_name="DensePose to IUV",
            category=POSE,
            description="Converts colour-mapped DensePose to raw IUV, without U and V: the colours hold only the part index.",
            search_aliases=["convert densepose", "viridis", "IUV"],
            inputs=[
                io.Image.Input(
                    "image", tooltip="DensePose in the colours of viridis, from a DensePose preprocessor. Raw IUV passes as it is.",
                ),
            ],
            outputs=[io.Image.Output(tooltip="For Apply Pose Guider and Region from Pose.")],
        )

    @classmethod
    def execute(cls, image) -> io.NodeOutput:
        require_finite(image, "The pose picture")
        return io.NodeOutput(to_iuv(image))
