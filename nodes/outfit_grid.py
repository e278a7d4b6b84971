from __future__ import annotations

from comfy_api.latest import io

from ..pictures.outfits import cross
from ..sheets.outfit_sheet import labels, outfit_sheet
from .node import Node
from .shown import shown
from .sockets import OUTFITS, GridSocket, PartsSocket


class Parts2WholeOutfitGrid(Node):
    @classmethod
    def define_schema(cls):
        each = "One PARTS: each of its parts is a {0}. A list of PARTS: each of them is a {0}, with all its parts."
        return io.Schema(
            node_id="Parts2WholeOutfitGrid",
            display_name="Outfit Grid",
            category=OUTFITS,
            description="Combines every part of the rows with every part of the columns, for example faces with garments. The "
            "nodes after it run once for each combination, in one queue.",
            search_aliases=["xy plot", "lookbook", "combinations", "outfit", "outfits", "clothes", "try-on", "换装", "衣服"],
            is_input_list=True,
            inputs=[
                PartsSocket.Input("rows", tooltip=f"From Encode Part Labels. {each.format('row')}"),
                PartsSocket.Input("columns", tooltip=f"From Encode Part Labels. {each.format('column')}"),
                PartsSocket.Input("shared", optional=True, tooltip="Parts that are worn in every picture."),
            ],
            outputs=[
                PartsSocket.Output(
                    display_name="PARTS", is_output_list=True, tooltip="What each picture wears, row by row, as a list."
                ),
                GridSocket.Output(display_name="GRID", tooltip="For Outfit Sheet."),
            ],
        )

    @classmethod
    def execute(cls, rows, columns, shared=()) -> io.NodeOutput:
        grid, outfits = cross(rows, columns, tuple(part for parts in shared for part in parts))
        return io.NodeOutput(outfits, grid)


class Parts2WholeOutfitSheet(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeOutfitSheet",
            display_name="Outfit Sheet",
            category=OUTFITS,
            description="Lays the pictures of an Outfit Grid out as a table, with the parts of each row and each column beside it.",
            search_aliases=["xy plot", "lookbook", "contact sheet"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="All pictures made from the PARTS of the Outfit Grid, from VAE Decode."),
                GridSocket.Input("grid", tooltip="From Outfit Grid."),
                io.Int.Input("height", default=384, min=64, max=4096, step=8, tooltip="Height of one picture in pixels."),
            ],
            outputs=[io.Image.Output(display_name="IMAGE", tooltip="The sheet that the node shows.")],
        )

    @classmethod
    def execute(cls, images, grid, height) -> io.NodeOutput:
        sheet = outfit_sheet(images, grid[0], height[0])
        return io.NodeOutput(sheet, ui=shown(sheet, labels(grid[0]), cls))
