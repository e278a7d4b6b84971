from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.applied import AppliedParts
from ..attention.patch.apply import apply
from ..attention.patch.host.warnings import warn
from ..pictures.part import require_finite
from .node import Node
from .sockets import APPLY, AppearanceSocket, LevelsSocket, crop_input, percent_inputs


class Parts2WholeApply(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeApply",
            display_name="Apply Parts2Whole",
            category=APPLY,
            description="Lets every self-attention of the model attend to the encoded parts too. Several can be chained.",
            search_aliases=[
                "shared self-attention", "reference attention", "apply parts", "reference", "ip-adapter", "ipadapter",
                "character consistency", "consistency", "identity", "参考", "人物",
            ],
            inputs=[
                io.Model.Input("model", tooltip="A U-Net of the same architecture as the appearance encoder. It stays as it is."),
                AppearanceSocket.Input("appearance", tooltip="From Encode Appearance, Combine Appearances or Load Appearance."),
                io.Combo.Input(
                    "mask_mode", options=["zero", "drop"], default="zero",
                    tooltip="What happens to the pictures outside their masks. zero: they take some attention and add nothing, as "
                    "trained. drop: they are left out, so that the parts act more strongly. Both cost the same.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01,
                    tooltip="Weight of the parts in the attention. 1 is as trained, 0 switches them off.",
                ),
                *percent_inputs(),
                io.Mask.Input(
                    "region", optional=True,
                    tooltip="Where in the result the parts may act: 1 fully, 0 not at all. Any size; best a little larger than "
                    "the part. Without it, everywhere.",
                ),
                LevelsSocket.Input(
                    "levels", optional=True, tooltip="From Strength by Depth. Without it, the same strength at every depth."
                ),
                io.Combo.Input(
                    "region_mode", options=["area", "centre"], default="area", optional=True, advanced=True,
                    tooltip="How the region is brought to the coarser layers. area: a token acts by how much of it lies in the "
                    "region. centre: as the region is at its centre, so that regions that do not overlap stay apart in every "
                    "layer, as those of People in One Frame should.",
                ),
                crop_input(),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(
        cls, model, appearance, mask_mode, strength, start_percent, end_percent, region=None, levels=(1.0,), region_mode="area",
        crop=None,
    ) -> io.NodeOutput:
        if region is not None:
            require_finite(region, "The region")
            region = region.clamp(0.0, 1.0).reshape(-1, *region.shape[-2:])
            if not region.any():
                labels = ", ".join(sorted({reference.label for reference in appearance.references}))
                warn(f"the region is zero everywhere, so these parts do nothing: {labels}.")
        applied = AppliedParts(
            appearance, mask_mode == "zero", strength, start_percent, end_percent, region, levels, by_centre=region_mode == "centre"
        )
        return io.NodeOutput(apply(model, applied.cut(crop.box) if crop else applied))
