from __future__ import annotations

import torch.nn.functional as F
from comfy_api.latest import io

from ..attention.patch.apply import record
from ..sheets.attribution_sheet import attribution_sheet
from .node import Node
from .shown import shown
from .sockets import LOOK, AttributionSocket


class Parts2WholeRecordAttribution(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeRecordAttribution",
            display_name="Record Attribution",
            category=LOOK,
            description="Records, while the model samples, how much attention each position of the result pays to each part. "
            "The result stays the same; sampling takes longer.",
            search_aliases=["attention map", "heat map", "explain"],
            inputs=[io.Model.Input("model", tooltip="With Apply Parts2Whole or Apply Reference Parts before or after this node.")],
            outputs=[io.Model.Output(tooltip="For one sampler."), AttributionSocket.Output(display_name="ATTRIBUTION")],
        )

    @classmethod
    def execute(cls, model) -> io.NodeOutput:
        return io.NodeOutput(*record(model))


class Parts2WholeShowAttribution(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeShowAttribution",
            display_name="Show Attribution",
            category=LOOK,
            description="Shows which part each position of the result attended to, and how the shares change over the steps.",
            search_aliases=["attention map", "heat map", "explain", "bleeding"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Record Attribution."),
                io.Latent.Input("latent", tooltip="The sampler's output, so that this node waits for it."),
                io.Image.Input("image", optional=True, tooltip="The decoded result, to draw over."),
            ],
            outputs=[
                io.Image.Output(display_name="IMAGE", tooltip="The sheet that the node shows."),
                io.Mask.Output(
                    display_name="MASK",
                    tooltip="One for each part of each latent, in the parts' order: its share of the attention, 0..1, of "
                    "the picture's size.",
                ),
            ],
        )

    @classmethod
    def execute(cls, attribution, latent, image=None) -> io.NodeOutput:
        maps = attribution.maps(latent["samples"])
        sheet = attribution_sheet(attribution, maps, image)
        masks = F.interpolate(maps[:, 1:-1], scale_factor=attribution.pixels, mode="bilinear", align_corners=False).flatten(0, 1)
        return io.NodeOutput(sheet, masks.clamp(0, 1), ui=shown(sheet, attribution.names[1:-1], cls))
