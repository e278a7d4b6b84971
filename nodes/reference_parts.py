from __future__ import annotations

from comfy_api.latest import io

from ..attention.edit.apply import apply_references
from ..attention.edit.references import add_references
from ..attention.patch.host.warnings import warn
from ..encoders.reference_latents import encode_references
from ..pictures.part import require_finite
from .node import Node
from .sockets import APPLY, PartsSocket, percent_inputs


class Parts2WholeReferenceParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeReferenceParts",
            display_name="Reference Parts",
            category=APPLY,
            description="Gives parts to an edit model (Flux Kontext, Flux.2, Qwen-Image-Edit and their kin) as reference pictures "
            "with masks. Takes the place of the host's reference latents; several can be chained.",
            search_aliases=[
                "reference latent", "edit model", "kontext", "flux 2", "klein", "qwen edit", "masked reference", "reference",
                "参考",
            ],
            inputs=[
                io.Conditioning.Input(
                    "conditioning", tooltip="References that it has already stay, come first, and count as whole."
                ),
                io.Vae.Input("vae", tooltip="The VAE of the edit model."),
                PartsSocket.Input("parts", tooltip="From Describe Parts. Each picture of a part is a reference, in their order."),
                io.Combo.Input(
                    "fit", options=["crop", "whole"], default="crop",
                    tooltip="crop: the box around the mask, so that a shoe is not lost in a photograph. whole: all of the picture. "
                    "The surroundings are white in both, and cost nothing while sampling.",
                ),
                io.Float.Input(
                    "megapixels", default=0.5, min=0.01, max=16.0, step=0.01,
                    tooltip="The size to which each picture, or its box, is scaled: 1 is 1024x1024. More shows finer detail, and "
                    "takes longer.",
                ),
                io.Float.Input(
                    "strength", default=1.0, min=0.0, max=10.0, step=0.01,
                    tooltip="Weight of these parts in the attention. 1 is as the model was trained, 0 leaves them out; they keep "
                    "their numbers.",
                ),
                io.Mask.Input(
                    "region", optional=True,
                    tooltip="Where in the result these parts may act: 1 fully, 0 not at all. Any size; best a little larger than "
                    "the part. It keeps a part away from elsewhere, and does not draw it there. Without it, everywhere.",
                ),
            ],
            outputs=[io.Conditioning.Output(tooltip="For a sampler whose MODEL comes from Apply Reference Parts.")],
        )

    @classmethod
    def execute(cls, conditioning, vae, parts, fit, megapixels, strength, region=None) -> io.NodeOutput:
        if region is not None:
            require_finite(region, "The region")
            region = region.clamp(0.0, 1.0).reshape(-1, *region.shape[-2:])
            if not region.any():
                labels = ", ".join(sorted({labelled.part.label for labelled in parts}))
                warn(f"the region is zero everywhere, so these parts do nothing: {labels}.")
        references = encode_references(vae, parts, fit, megapixels)
        return io.NodeOutput(add_references(conditioning, references, strength, region))


class Parts2WholeApplyReferences(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeApplyReferences",
            display_name="Apply Reference Parts",
            category=APPLY,
            description="Makes an edit model follow the masks, strengths and regions of Reference Parts. Once for each model; "
            "references of other nodes act as before.",
            search_aliases=[
                "reference latent", "edit model", "kontext", "flux 2", "klein", "qwen edit", "masked reference", "reference",
                "参考",
            ],
            inputs=[
                io.Model.Input("model", tooltip="Flux, Kontext, Flux.2, Klein, Qwen-Image-Edit, Krea 2 or Mage-Flow."),
                *percent_inputs(),
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def execute(cls, model, start_percent=0.0, end_percent=1.0) -> io.NodeOutput:
        return io.NodeOutput(apply_references(model, start_percent, end_percent))
