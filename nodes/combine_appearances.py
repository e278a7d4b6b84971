from __future__ import annotations

from comfy_api.latest import io

from ..attention.bank import Appearance
from .node import Node
from .sockets import OUTFITS, AppearanceSocket

MOST_REFERENCES = 256  # sixteen inputs of sixteen parts each


class Parts2WholeCombineAppearances(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeCombineAppearances",
            display_name="Combine Appearances",
            category=OUTFITS,
            description="Joins parts that were encoded separately, so that one can be swapped without encoding the others again.",
            search_aliases=["merge appearances", "join appearances"],
            inputs=[
                io.Autogrow.Input(
                    "appearances",
                    template=io.Autogrow.TemplatePrefix(
                        AppearanceSocket.Input("appearance", tooltip="From Encode Appearance or Load Appearance."),
                        prefix="appearance", min=0, max=16,
                    ),
                ),
            ],
            outputs=[AppearanceSocket.Output(display_name="APPEARANCE")],
        )

    @classmethod
    def execute(cls, appearances) -> io.NodeOutput:
        given = [appearance for appearance in appearances.values() if appearance is not None]
        if not given:
            raise ValueError("Combine Appearances got none: connect at least one Encode Appearance node.")
        count = sum(len(appearance.references) for appearance in given)
        if count > MOST_REFERENCES:
            raise ValueError(
                f"Combine Appearances got {count} references: at most {MOST_REFERENCES} are worn at once. Connect fewer, and each "
                "of them once."
            )
        return io.NodeOutput(Appearance(tuple(reference for appearance in given for reference in appearance.references)))
