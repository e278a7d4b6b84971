from __future__ import annotations

import hashlib
import os

import folder_paths
import node_helpers
import numpy as np
import torch
from comfy_api.latest import io
from PIL import Image, ImageOps, UnidentifiedImageError

from ..encoders.reference_picture import make_part
from .sockets import CATEGORY, PartSocket, label_inputs

# The mask editor saves what it painted under this name, with the painted places transparent.
MASK_EDITOR_PREFIX = "clipspace"


class Parts2WholeLoadPart(io.ComfyNode):
    @classmethod
    def define_schema(cls):
        folder = folder_paths.get_input_directory()
        files = [file for file in os.listdir(folder) if os.path.isfile(os.path.join(folder, file))]
        return io.Schema(
            node_id="Parts2WholeLoadPart",
            display_name="Load Part",
            category=CATEGORY,
            description="Loads a picture of something to wear, with its mask and its label.",
            search_aliases=["reference part", "load garment", "load face", "load clothes"],
            inputs=[
                io.Combo.Input(
                    "image", options=sorted(folder_paths.filter_files_content_types(files, ["image"])),
                    upload=io.UploadType.image, image_folder=io.FolderType.input,
                    tooltip="A picture that shows the part. The mask says where in it.",
                ),
                *label_inputs(),
                io.Combo.Input(
                    "mask_source", options=["auto", "alpha", "painted", "whole picture"], default="auto", optional=True,
                    tooltip="Where the mask comes from when none is connected. alpha: the opaque places of a cut-out. painted: "
                    "the places painted in the mask editor, which opens a cut-out with its background painted: press Clear "
                    "there first. whole picture: all of it. auto: painted for a picture from the mask editor, else alpha, which "
                    "is all of a picture without transparency.",
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
        picture = _read_picture(folder_paths.get_annotated_filepath(image))
        painted = os.path.basename(image).startswith(MASK_EDITOR_PREFIX) or image.startswith(MASK_EDITOR_PREFIX)
        if mask_source == "auto":
            mask_source = "painted" if painted else "alpha"
        rgb, alpha = picture[..., :3], picture[..., 3:]
        if mask_source == "painted":
            if mask is None and not alpha.numel():
                raise ValueError(
                    f"{image} has no transparency, so nothing was painted on it. Paint the part in the mask editor (right "
                    "click on the node, Open in MaskEditor), connect a mask, or set mask_source to 'whole picture'."
                )
            # What is painted becomes transparent, but keeps its colours.
            mask = 1.0 - alpha[..., 0] if mask is None else mask
            picture = rgb
        elif mask_source == "whole picture" and mask is None:
            mask = torch.ones(picture.shape[:3])
        return io.NodeOutput(make_part(custom_label.strip() or label, picture, mask))

    @classmethod
    def fingerprint_inputs(cls, image, **kwargs):
        if image is None:  # connected, so not known yet
            return None
        with open(folder_paths.get_annotated_filepath(image), "rb") as f:
            return hashlib.sha256(f.read()).hexdigest()

    @classmethod
    def validate_inputs(cls, image=None, label=None) -> bool | str:
        # Naming `label` here lets any text through over the API, not only the list's.
        if image is not None and not folder_paths.exists_annotated_filepath(image):
            return f"Invalid image file: {image}. Upload it, or put it into ComfyUI's input folder."
        return True


def _read_picture(path: str) -> torch.Tensor:
    """[1, H, W, 3 or 4] in 0..1"""
    try:
        picture = node_helpers.pillow(Image.open, path)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture, or it is damaged. Upload it again.") from None
    picture = node_helpers.pillow(ImageOps.exif_transpose, picture)
    transparent = "A" in picture.getbands() or "transparency" in picture.info
    if picture.mode.startswith("I"):  # 16 bits
        picture = picture.point(lambda value: value / 256)
    pixels = np.array(picture.convert("RGBA" if transparent else "RGB"))
    return torch.from_numpy(pixels.astype(np.float32) / 255.0)[None]
