from __future__ import annotations

from comfy_api.latest import io

from ..encoders.checkpoint.schedule import ddim_sigmas
from .node import Node
from .sockets import APPLY


class Parts2WholeSigmas(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeSigmas",
            display_name="Parts2Whole Sigmas",
            category=APPLY,
            description="The sigmas of the public release's DDIM schedule, for SamplerCustom with the ddim sampler.",
            search_aliases=["ddim scheduler", "ddim sigmas"],
            inputs=[
                io.Model.Input("model", tooltip="The model that samples: its noise schedule is read."),
                io.Int.Input("steps", default=50, min=1, max=999, tooltip="Number of sampling steps. The release takes 50."),
                io.Float.Input(
                    "denoise", default=1.0, min=0.0, max=1.0, step=0.01,
                    tooltip="Fraction of the schedule to run: 1 from pure noise, less to keep something of the latent.",
                ),
            ],
            outputs=[io.Sigmas.Output()],
        )

    @classmethod
    def execute(cls, model, steps, denoise) -> io.NodeOutput:
        return io.NodeOutput(ddim_sigmas(model.get_model_object("model_sampling"), steps, denoise))
