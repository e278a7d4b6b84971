from __future__ import annotations

from comfy_api.latest import io

from ..pictures.refine_mask import refine_mask
from .node import Node
from .sockets import PARTS


class Parts2WholeRefineMask(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeRefineMask",
            display_name="Refine Mask",
            category=PARTS,
            description="Mends the mask of a part: keeps its largest piece, fills holes, grows or shrinks it, fits it to the "
            "picture's edges, feathers it.",
            search_aliases=["mask", "grow mask", "fill holes", "largest component", "mask edges", "guided filter"],
            inputs=[
                io.Mask.Input("mask", tooltip="1 where the picture shows the part."),
                io.Image.Input("image", optional=True, tooltip="The picture that the mask belongs to, for edges."),
                io.Boolean.Input(
                    "largest", default=False,
                    tooltip="Keeps only the largest piece. Leave it off for shoes: they are two pieces.",
                ),
                io.Boolean.Input("fill_holes", default=True, tooltip="Fills holes that the mask encloses."),
                io.Int.Input("grow", default=0, min=-512, max=512, tooltip="Pixels by which the mask grows; negative shrinks it."),
                io.Int.Input(
                    "edges", default=0, min=0, max=256,
                    tooltip="Radius in pixels in which the mask's border looks for an edge of the picture. 0: not at all.",
                ),
                io.Int.Input("feather", default=0, min=0, max=256, tooltip="Radius in pixels over which the border becomes soft."),
            ],
            outputs=[io.Mask.Output(tooltip="For Load Part or Part from Image.")],
        )

    @classmethod
    def execute(cls, mask, largest, fill_holes, grow, edges, feather, image=None) -> io.NodeOutput:
        mask = mask.reshape(-1, *mask.shape[-2:]).float()
        return io.NodeOutput(refine_mask(mask, image, largest, fill_holes, grow, edges, feather))
