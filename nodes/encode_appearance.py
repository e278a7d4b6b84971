from __future__ import annotations

from comfy_api.latest import io

from ..encoders.appearance import encode_appearance
from .node import Node
from .sockets import ENCODE, AppearanceEncoderSocket, AppearanceSocket, PartsSocket, frame_inputs


class Parts2WholeEncodeAppearance(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeEncodeAppearance",
            display_name="Encode Appearance",
            category=ENCODE,
            description="Encodes parts with the appearance encoder, once: the result does not depend on prompt, seed or steps.",
            search_aliases=["encode parts", "encode references", "reference", "identity", "consistency", "character", "参考"],
            inputs=[
                AppearanceEncoderSocket.Input(
                    "appearance_encoder", tooltip="From Load Parts2Whole or Use Model as Appearance Encoder."
                ),
                io.Vae.Input("vae", tooltip="The VAE that belongs to the appearance encoder."),
                PartsSocket.Input("parts", tooltip="From Encode Part Labels."),
                *frame_inputs(),
            ],
            outputs=[AppearanceSocket.Output(display_name="APPEARANCE")],
        )

    @classmethod
    def execute(cls, appearance_encoder, vae, parts, width, height, fit="stretch") -> io.NodeOutput:
        if any(labelled.text_embedding is None for labelled in parts):
            raise ValueError(
                "Encode Appearance got parts whose labels are not embedded, from Describe Parts: that is for edit models. Gather "
                "the parts with Encode Part Labels instead."
            )
        return io.NodeOutput(encode_appearance(appearance_encoder, vae, parts, width, height, fit))
