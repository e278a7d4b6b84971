from __future__ import annotations

from comfy_api.latest import io

from ..pictures.crop import crop_box
from .node import Node
from .sockets import DETAIL, CropSocket, box_inputs


class Parts2WholeCropBox(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeCropBox",
            display_name="Crop Box",
            category=DETAIL,
            description="Says which crop of a picture a MODEL draws, where another pack's node crops it: for the `crop` of Apply "
            "Pose Guider and Apply Parts2Whole.",
            search_aliases=["bounding box", "crop region", "detailer", "tile"],
            inputs=[io.Image.Input("image", tooltip="The whole picture, for its size."), *box_inputs()],
            outputs=[CropSocket.Output(display_name="CROP")],
        )

    @classmethod
    def execute(cls, image, x, y, width, height) -> io.NodeOutput:
        return io.NodeOutput(crop_box(x, y, width, height, (image.shape[2], image.shape[1])))
