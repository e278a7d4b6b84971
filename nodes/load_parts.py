from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.host.warnings import warn
from ..pictures.part import LABELS, escaped
from ..pictures.part_file import covers_too_much, is_taken_whole
from ..pictures.part_files import BY_FILE_NAME, NO_FOLDER, list_folders, names_of, read_parts
from ..pictures.picture_file import digest_of
from .node import Node
from .shown import KEPT, shown_parts
from .sockets import PARTS, PartSocket


class Parts2WholeLoadParts(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLoadParts",
            display_name="Load Parts",
            category=PARTS,
            description="Loads several pictures at once, chosen, dropped or all of a folder: each is a part, with its mask and its "
            "label.",
            search_aliases=[
                "load folder", "batch", "load garments", "load outfit", "reference", "clothes", "outfit", "衣服", "参考",
            ],
            inputs=[
                io.String.Input(
                    "images", multiline=True, default="",
                    tooltip="Names of pictures in ComfyUI's input folder, one on each line. Choose several by the button, or drop "
                    "them on the node. Each is a part.",
                ),
                io.Combo.Input(
                    "folder", options=list_folders(), default=NO_FOLDER, optional=True,
                    tooltip="A folder in ComfyUI's input folder: all its pictures, instead of those that were chosen.",
                ),
                io.Combo.Input(
                    "label", options=[BY_FILE_NAME, *LABELS], default=BY_FILE_NAME, optional=True,
                    tooltip="One for all, or by file name: my_upper_body_clothes.png is upper body clothes. Where the name holds "
                    "none of the six, it is the label itself, without its numbers.",
                ),
                io.Combo.Input(
                    "mask_source", options=["auto", "alpha", "painted", "whole picture"], default="auto", optional=True,
                    tooltip="Where the masks come from, as in Load Part: auto takes the opaque pixels of a cut-out, or all of a "
                    "picture without transparency.",
                ),
            ],
            outputs=[
                PartSocket.Output(
                    display_name="PART", tooltip="All of them, for one slot of Encode Part Labels or Describe Parts."
                )
            ],
        )

    @classmethod
    def execute(cls, images, folder=NO_FOLDER, label=BY_FILE_NAME, mask_source="auto") -> io.NodeOutput:
        names = names_of(images, folder)
        parts = read_parts(names, label, mask_source)
        shown = shown_parts(parts, cls)
        wide = [name for name, share in zip(names, shown[KEPT]) if covers_too_much(name, mask_source, None, share)]
        if wide:
            warn(
                f"what was painted is most of the picture in {', '.join(escaped(name) for name in wide)}. If it is what surrounds "
                "the part, open the mask editor again, press Clear or Invert, and paint the part."
            )
        whole = [name for name, part in zip(names, parts) if is_taken_whole(name, mask_source, None, part)]
        if whole:
            warn(
                f"without transparency, a picture counts as the part with its background: {', '.join(map(escaped, whole))}. Take "
                "cut-outs. If that is meant, set mask_source to 'alpha': cut-outs stay cut."
            )
        return io.NodeOutput(parts, ui=shown)

    @classmethod
    def fingerprint_inputs(cls, images, folder=NO_FOLDER, **kwargs):
        if images is None or folder is None:  # connected, so not known yet
            return None
        return digest_of(names_of(images, folder))

    @classmethod
    def validate_inputs(cls, images=None, folder=None) -> bool | str:
        try:
            return images is None or bool(names_of(images, folder or NO_FOLDER))
        except ValueError as error:
            return str(error)
