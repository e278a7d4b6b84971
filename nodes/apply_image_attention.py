from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.apply import apply
from ..encoders.image_tokens import attend_to_images
from .node import Node
from .sockets import APPLY, ImageAttentionSocket, PartsSocket


class Parts2WholeApplyImageAttention(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeApplyImageAttention",
            display_name="Apply Part Image Attention",
            category=APPLY,
            description="Lets the model attend to one CLIP image token for each picture of a part, beside the text: six pictures "
            "at most.",
            search_aliases=["decoupled cross-attention", "image prompt", "clip vision"],
            inputs=[
                io.Model.Input("model", tooltip="The model of the same checkpoint. It stays as it is."),
                ImageAttentionSocket.Input("image_attention", tooltip="From Load Parts2Whole."),
                io.ClipVision.Input("clip_vision", tooltip="From the same Load Parts2Whole node."),
                PartsSocket.Input("parts", tooltip="From Encode Part Labels: six pictures at most."),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01,
                    tooltip="Multiplies what the image tokens add. 1 is as trained, 0 switches them off.",
                ),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, image_attention, clip_vision, parts, strength) -> io.NodeOutput:
        return io.NodeOutput(apply(model, attend_to_images(image_attention, clip_vision, parts, strength)))
