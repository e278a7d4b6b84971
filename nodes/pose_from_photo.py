from __future__ import annotations

from comfy_api.latest import io

from ..pictures.densepose import densepose_file, list_densepose, pose_of_photo
from ..pictures.part import require_finite
from .node import Node
from .sockets import POSE


class Parts2WholePoseFromPhoto(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePoseFromPhoto",
            display_name="Pose from Photo",
            category=POSE,
            description="Finds the pose in a photograph of a person, as raw IUV, with a DensePose model.",
            search_aliases=["densepose", "IUV", "pose estimation", "preprocessor"],
            inputs=[
                io.Image.Input("image", tooltip="A photograph of a person, or several as a batch. Any size."),
                io.Combo.Input(
                    "densepose", options=list_densepose(),
                    tooltip="A TorchScript file under models/densepose, or that of the ControlNet auxiliary preprocessors. Such a "
                    "file is code: take one that you trust. Nothing is downloaded.",
                ),
                io.Int.Input(
                    "person", default=0, min=0, max=99,
                    tooltip="Whose pose, where a photograph shows several people: 0 is the largest, 1 the next.",
                ),
                io.Boolean.Input(
                    "swap_uv", default=False, advanced=True,
                    tooltip="For a model that gives U and V the other way round. They are right where on an upright torso from the "
                    "front red gets less from left to right and green more from top to bottom.",
                ),
            ],
            outputs=[
                io.Image.Output(tooltip="Raw IUV. For Apply Pose Guider and Region from Pose."),
                io.Mask.Output(tooltip="The body, clothes included: 1 where the person is."),
            ],
        )

    @classmethod
    def validate_inputs(cls, densepose=None) -> bool | str:
        # The host's own "not in list" does not say which model goes where.
        try:
            return densepose is None or bool(densepose_file(densepose))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    def execute(cls, image, densepose, person, swap_uv) -> io.NodeOutput:
        require_finite(image, "The photograph")
        return io.NodeOutput(*pose_of_photo(image, densepose_file(densepose), person, swap_uv))
