from __future__ import annotations

from comfy_api.latest import io

from ..encoders.appearance import model_as_encoder
from .node import Node
from .sockets import ENCODE, AppearanceEncoderSocket


class Parts2WholeModelAsEncoder(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeModelAsEncoder",
            display_name="Use Model as Appearance Encoder",
            category=ENCODE,
            description="Uses any U-Net (SD1.5, SD2.x, SDXL) as appearance encoder, without training.",
            search_aliases=["training-free", "reference only", "reference", "ip-adapter", "consistency", "参考"],
            inputs=[
                io.Model.Input("model", tooltip="Any U-Net; best the one that samples."),
                io.Int.Input(
                    "noise_level", default=0, min=0, max=999, optional=True, advanced=True,
                    tooltip="Timestep at which the encoder sees the references, 0..999, with noise to match. 0 is as trained.",
                ),
            ],
            outputs=[AppearanceEncoderSocket.Output(display_name="APPEARANCE_ENCODER")],
        )

    @classmethod
    def execute(cls, model, noise_level=0) -> io.NodeOutput:
        return io.NodeOutput(model_as_encoder(model, noise_level))
