from __future__ import annotations

from comfy_api.latest import io

from ..pictures.part import LABELS
from ..pictures.pose_region import pose_region
from .node import Node
from .sockets import POSE


class Parts2WholePoseRegion(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePoseRegion",
            display_name="Region from Pose",
            category=POSE,
            description="Makes a mask of where in the result a part belongs, from a raw IUV DensePose picture.",
            search_aliases=["densepose mask", "body region", "regional"],
            inputs=[
                io.Image.Input("image", tooltip="Raw IUV DensePose, as for Apply Pose Guider: the part index 0..24 in blue."),
                io.Combo.Input(
                    "label", options=list(LABELS), default=LABELS[2],
                    tooltip="What the part is. Face and hair: the head. Upper body clothes: torso and arms. Lower body clothes: "
                    "legs. Whole body clothes: both. Shoes: the feet.",
                ),
                io.Float.Input(
                    "grow", default=0.04, min=0.0, max=1.0, step=0.005,
                    tooltip="How far the region reaches beyond these parts of the body, as a share of the picture's height.",
                ),
            ],
            outputs=[io.Mask.Output(tooltip="For the region of Apply Parts2Whole.")],
        )

    @classmethod
    def execute(cls, image, label, grow) -> io.NodeOutput:
        return io.NodeOutput(pose_region(image, label, grow))
