from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.applied import AppliedPose
from ..attention.patch.apply import apply
from ..attention.patch.host.warnings import warn
from ..encoders.pose_network import PoseNetwork
from ..pictures.part import require_finite
from ..pictures.pose_kind import COLOUR_MAPPED, IUV, empty_poses, pose_kind
from .node import Node
from .sockets import POSE, PoseGuiderSocket, crop_input, percent_inputs


class Parts2WholeApplyPose(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeApplyPose",
            display_name="Apply Pose Guider",
            category=POSE,
            description="Makes the person take the pose of a DensePose picture.",
            search_aliases=["densepose", "pose control", "IUV"],
            inputs=[
                io.Model.Input("model", tooltip="The model of the same checkpoint. It stays as it is."),
                PoseGuiderSocket.Input("pose_guider", tooltip="From Load Parts2Whole."),
                io.Image.Input(
                    "image",
                    tooltip="The pose. The public release was trained with raw IUV DensePose: part index 0..24 in blue, U and "
                    "V in red and green. Any size; stretched to the result's. A batch gives each picture its own pose.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01,
                    tooltip="Multiplies the pose features. 1 is as trained, 0 switches them off.",
                ),
                *percent_inputs(),
                crop_input(),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, pose_guider, image, strength, start_percent, end_percent, crop=None) -> io.NodeOutput:
        if not isinstance(pose_guider.model, PoseNetwork):
            raise ValueError(
                f"The POSE_GUIDER is a {type(pose_guider.model).__name__}: connect the output POSE_GUIDER of Load Parts2Whole."
            )
        require_finite(image, "The pose picture")
        kind = pose_kind(image)
        if kind != IUV:
            mend = "Convert it by DensePose to IUV." if kind == COLOUR_MAPPED else "Make one of a photograph by Pose from Photo."
            warn(
                f"the pose picture is {kind}. The public release was trained with raw IUV DensePose (part index 0..24 in blue) and "
                f"will hardly follow it. {mend}"
            )
        elif empty := empty_poses(image):
            which = "" if len(image) == 1 else f" {', '.join(map(str, empty))} of the batch"
            warn(
                f"the pose picture{which} shows no body: its part index, in blue, is 0 everywhere. The person's pose is left to "
                "the model. Make the pose again, or bypass Apply Pose Guider."
            )
        applied = AppliedPose(pose_guider, image, strength, start_percent, end_percent)
        return io.NodeOutput(apply(model, applied.cut(crop.box) if crop else applied))
