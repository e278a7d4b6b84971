from __future__ import annotations

from comfy_api.latest import io

from ..pictures.human_parsing import list_parsers, parse_photo, parser_folder
from ..pictures.label_maps import SCHEMES, parts_of, read_label_map
from ..pictures.part import LABELS
from .node import Node
from .sockets import PARTS, PartSocket


def _smallest_input() -> io.Input:
    return io.Float.Input(
        "smallest", default=0.001, min=0.0, max=1.0, step=0.0005, advanced=True,
        tooltip="Share of the picture, 0..1, below which a part is taken for an error of the parser and left out.",
    )


def _part_outputs() -> list[io.Output]:
    return [
        PartSocket.Output(display_name=label, tooltip="For Encode Part Labels. Empty where the photograph shows none.")
        for label in LABELS
    ]


class Parts2WholePhotoToParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePhotoToParts",
            display_name="Photo to Parts",
            category=PARTS,
            description="Finds the six parts in a photograph of a person, with a SegFormer for human parsing.",
            search_aliases=[
                "human parsing", "segment clothes", "garment mask", "segformer", "mask", "face mask", "clothes", "person", "抠图",
                "衣服", "人物",
            ],
            inputs=[
                io.Image.Input("image", tooltip="A photograph of one person, or several as a batch."),
                io.Combo.Input(
                    "parser", options=list_parsers(),
                    tooltip="A folder under models/human_parsing, for example segformer_b2_clothes. Nothing is downloaded.",
                ),
                _smallest_input(),
            ],
            outputs=_part_outputs(),
        )

    @classmethod
    def validate_inputs(cls, parser=None) -> bool | str:
        # The host's own "not in list" does not say which model goes where.
        try:
            return parser is None or bool(parser_folder(parser))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    def execute(cls, image, parser, smallest) -> io.NodeOutput:
        return io.NodeOutput(*parts_of(image, *parse_photo(image, parser_folder(parser)), smallest).values())


class Parts2WholeLabelMapToParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLabelMapToParts",
            display_name="Label Map to Parts",
            category=PARTS,
            description="Finds the six parts in a photograph from the label map that a human parser made of it.",
            search_aliases=["human parsing", "parsing map", "ATR", "LIP", "CIHP"],
            inputs=[
                io.Image.Input("image", tooltip="A photograph of one person, or several as a batch."),
                io.Image.Input(
                    "label_map",
                    tooltip="One for each picture, of any size: class numbers as grey values, or in the colours of the PASCAL VOC "
                    "palette.",
                ),
                io.Combo.Input("scheme", options=list(SCHEMES), default="ATR", tooltip="Which class numbers the map uses."),
                _smallest_input(),
            ],
            outputs=_part_outputs(),
        )

    @classmethod
    def execute(cls, image, label_map, scheme, smallest) -> io.NodeOutput:
        return io.NodeOutput(*parts_of(image, read_label_map(label_map, scheme), scheme, smallest).values())
