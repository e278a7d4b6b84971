from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.host.warnings import warn
from ..pictures.part import escaped
from ..pictures.part_file import covers_too_much, is_taken_whole, read_part
from ..pictures.picture_file import digest_of, list_pictures, picture_path
from .node import Node
from .shown import KEPT, shown_parts
from .sockets import PARTS, PartSocket, label_inputs


class Parts2WholeLoadPart(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLoadPart",
            display_name="Load Part",
            category=PARTS,
            description="Loads a picture of a part (face, hair, clothes, shoes), with its mask and its label.",
            search_aliases=[
                "reference part", "load garment", "load face", "load clothes", "reference", "reference image", "face", "clothes",
                "character", "person", "identity", "outfit", "参考", "衣服", "人物", "脸",
            ],
            inputs=[
                io.Combo.Input(
                    "image", options=list_pictures(), upload=io.UploadType.image, image_folder=io.FolderType.input,
                    tooltip="A picture that shows the part. The mask says where in it.",
                ),
                *label_inputs(),
                io.Combo.Input(
                    "mask_source", options=["auto", "alpha", "painted", "whole picture"], default="auto", optional=True,
                    tooltip="Where the mask comes from when none is connected. alpha: the opaque pixels of a cut-out, or all of a "
                    "picture without transparency. painted: what was painted in the mask editor; of a cut-out, inside of it. "
                    "whole picture: all of it. auto: painted for a picture from "
                    "the mask editor, otherwise alpha.",
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="1 where the picture shows the part. Any size. Used instead of mask_source.",
                ),
            ],
            outputs=[PartSocket.Output(display_name="PART")],
        )

    @classmethod
    def execute(cls, image, label, custom_label="", mask_source="auto", mask=None) -> io.NodeOutput:
        part = read_part(image, custom_label.strip() or label, mask_source, mask)
        shown = shown_parts([part], cls)
        if covers_too_much(image, mask_source, mask, shown[KEPT][0]):
            warn(
                f"what was painted on '{escaped(image)}' is {100 * shown[KEPT][0]:.0f}% of the picture. If it is what surrounds "
                "the part, open the mask editor again, press Clear or Invert, and paint the part."
            )
        elif is_taken_whole(image, mask_source, mask, part):
            warn(
                f"all of '{escaped(image)}' counts as the part, background too. Take a cut-out, paint the part in the mask editor, "
                "or set mask_source to 'whole picture' if that is meant."
            )
        return io.NodeOutput(part, ui=shown)

    @classmethod
    def fingerprint_inputs(cls, image, **kwargs):
        if image is None:  # connected, so not known yet
            return None
        return digest_of([image])

    @classmethod
    def validate_inputs(cls, image=None, label=None) -> bool | str:
        # Naming `label` here lets any text through over the API, not only the list's.
        try:
            return image is None or bool(picture_path(image))
        except ValueError as error:
            return str(error)
