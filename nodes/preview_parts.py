from __future__ import annotations

from comfy_api.latest import io

from ..sheets.parts_sheet import parts_sheet
from .node import Node
from .shown import shown
from .sockets import LOOK, PartsSocket, frame_inputs


class Parts2WholePreviewParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePreviewParts",
            display_name="Preview Parts",
            category=LOOK,
            description="Shows every part: its label, the picture, and what of it the appearance encoder sees and keeps.",
            search_aliases=["preview references", "preview mask", "contact sheet", "reference", "mask"],
            is_output_node=True,
            inputs=[PartsSocket.Input("parts", tooltip="From Encode Part Labels or Describe Parts."), *frame_inputs()],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The contact sheet, one column for each picture.")],
        )

    @classmethod
    def execute(cls, parts, width, height, fit="stretch") -> io.NodeOutput:
        sheet = parts_sheet(parts, width, height, fit)
        return io.NodeOutput(sheet, ui=shown(sheet, (labelled.part.label for labelled in parts), cls))
