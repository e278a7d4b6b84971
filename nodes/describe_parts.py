from __future__ import annotations

from comfy_api.latest import io

from ..pictures.cut_out import cut_outs, side_by_side
from ..pictures.describe import describe_parts
from ..pictures.part import LabelledPart
from .node import Node
from .sockets import ENCODE, PARTS, PartSocket, PartsSocket, gathered, parts_input


class Parts2WholeDescribeParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeDescribeParts",
            display_name="Describe Parts",
            category=ENCODE,
            description="Gathers parts for an edit model, and names each of their pictures in the prompt by number and label.",
            search_aliases=["gather parts", "edit model prompt", "image 1", "picture 1"],
            inputs=[
                parts_input(),
                io.String.Input(
                    "prompt", multiline=True, default="{parts} One person wears all of this. Full body, studio light.",
                    tooltip="The whole prompt. The word parts in braces stands for the sentences about the pictures.",
                ),
                io.String.Input(
                    "sentence", default="Image {number}: the {label}.",
                    tooltip="What is said of each picture, with number and label in braces. For Qwen-Image-Edit say Picture, as "
                    "its text encoder does.",
                ),
                io.Int.Input(
                    "first_number", default=1, min=1, max=99,
                    tooltip="The number of the first picture: 2 where the conditioning has one reference already.",
                ),
            ],
            outputs=[
                PartsSocket.Output(display_name="PARTS", tooltip="For Reference Parts and Preview Parts."),
                io.String.Output(display_name="STRING", tooltip="The prompt, for the text encoder."),
            ],
        )

    @classmethod
    def execute(cls, parts, prompt, sentence, first_number=1) -> io.NodeOutput:
        parts = gathered(parts, "Describe Parts")
        text = describe_parts(parts, prompt, sentence, first_number)
        return io.NodeOutput(tuple(LabelledPart(part, None, None) for part in parts), text)


class Parts2WholeCutOut(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeCutOut",
            display_name="Cut Out Part",
            category=PARTS,
            description="The picture of a part on white, for nodes that take an IMAGE: the text encoders of Qwen-Image-Edit and "
            "others look at the pictures too, and would see what is around the part.",
            search_aliases=["remove background", "crop to mask", "part to image"],
            inputs=[
                PartSocket.Input(
                    "part", tooltip="From Load Part, Load Parts, Part from Image, Photo to Parts or Label Map to Parts."
                ),
                io.Combo.Input(
                    "fit", options=["crop", "whole"], default="crop",
                    tooltip="crop: the box around the mask. whole: all of the picture.",
                ),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="One for each picture of the part, padded to one size."),
                io.Mask.Output(display_name="MASK", tooltip="1 where the picture shows the part."),
            ],
        )

    @classmethod
    def execute(cls, part, fit="crop") -> io.NodeOutput:
        parts = part if isinstance(part, tuple) else (part,)
        return io.NodeOutput(*side_by_side([cut for each in parts for cut in cut_outs(each, fit)]))
