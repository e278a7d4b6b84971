from __future__ import annotations

import os

from comfy_api.latest import io

from ..encoders.wardrobe import SUBFOLDER, appearance_path, list_appearances, load_appearance, new_path, save_appearance, shown_path
from ..sheets.appearance_sheet import save_beside
from .node import Node
from .shown import shown_appearance
from .sockets import OUTFITS, AppearanceEncoderSocket, AppearanceSocket


class Parts2WholeSaveAppearance(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeSaveAppearance",
            display_name="Save Appearance",
            category=OUTFITS,
            description="Saves encoded parts to a file, to be worn again without their pictures and without encoding.",
            search_aliases=["wardrobe", "save outfit", "export appearance", "outfit", "clothes", "character", "identity", "换装"],
            is_output_node=True,
            inputs=[
                AppearanceSocket.Input("appearance", tooltip="From Encode Appearance or Combine Appearances."),
                io.String.Input(
                    "filename_prefix", default=f"{SUBFOLDER}/appearance",
                    tooltip="Where under ComfyUI's output folder. Load Appearance lists what lies in output/wardrobe.",
                ),
            ],
            outputs=[AppearanceSocket.Output(display_name="APPEARANCE", tooltip="The same appearance.")],
        )

    @classmethod
    def execute(cls, appearance, filename_prefix) -> io.NodeOutput:
        path = new_path(filename_prefix)
        save_appearance(appearance, path)
        sheet = shown_appearance(appearance, cls)
        save_beside(path, appearance)
        return io.NodeOutput(appearance, ui={"text": (shown_path(path),), **sheet})


class Parts2WholeLoadAppearance(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLoadAppearance",
            display_name="Load Appearance",
            category=OUTFITS,
            description="Loads encoded parts that Save Appearance wrote.",
            search_aliases=[
                "wardrobe", "load outfit", "import appearance", "outfit", "clothes", "character", "identity", "try-on", "换装",
            ],
            inputs=[
                io.Combo.Input("file", options=list_appearances(), tooltip="A file in output/wardrobe."),
                AppearanceEncoderSocket.Input(
                    "appearance_encoder", optional=True,
                    tooltip="The encoder of the checkpoint in use: parts from another encoder are refused.",
                ),
            ],
            outputs=[AppearanceSocket.Output(display_name="APPEARANCE", tooltip="For Apply Parts2Whole or Combine Appearances.")],
        )

    @classmethod
    def validate_inputs(cls, file=None) -> bool | str:
        # The host's own "not in list" does not say where files go.
        try:
            return file is None or bool(appearance_path(file))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    def fingerprint_inputs(cls, file, **kwargs):
        if file is None:  # connected, so not known yet
            return None
        status = os.stat(appearance_path(file))
        return status.st_mtime_ns, status.st_size

    @classmethod
    def execute(cls, file, appearance_encoder=None) -> io.NodeOutput:
        appearance = load_appearance(appearance_path(file), appearance_encoder)
        return io.NodeOutput(appearance, ui=shown_appearance(appearance, cls))
