from __future__ import annotations

from comfy_api.latest import io

from ..attention.bank import Appearance
from .sockets import CATEGORY, AppearanceSocket


class Parts2WholeCombineAppearances(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeCombineAppearances",
            display_name="Combine Appearances",
            category=CATEGORY,
            description="Puts parts that were encoded apart together, so that one can be swapped without encoding the others again.",
            search_aliases=["merge appearances", "join appearances"],
            inputs=[
                io.Autogrow.Input(
                    "appearances",
                    template=io.Autogrow.TemplatePrefix(AppearanceSocket.Input("appearance"), prefix="appearance", min=1, max=16),
                ),
            ],
            outputs=[AppearanceSocket.Output(display_name="APPEARANCE")],
        )

    @classmethod
    def execute(cls, appearances) -> io.NodeOutput:
        references = [reference for appearance in appearances.values() if appearance for reference in appearance.references]
        return io.NodeOutput(Appearance(tuple(references)))
