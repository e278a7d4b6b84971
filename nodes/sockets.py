"""The pack's own socket types, and what travels through them."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..attention.bank import Appearance
from ..attention.patch.attribution import Attribution
from ..attention.patch.host.warnings import warn
from ..encoders.appearance import AppearanceEncoder
from ..pictures.crop import Crop
from ..pictures.outfits import OutfitGrid
from ..pictures.part import LABELS, LabelledPart, Part

PartSocket = io.Custom("P2W_PART")
PartSocket.Type = (Part, tuple[Part, ...])  # one, or all that Load Parts loads
PartsSocket = io.Custom("P2W_PARTS")
PartsSocket.Type = tuple[LabelledPart, ...]
AppearanceEncoderSocket = io.Custom("P2W_APPEARANCE_ENCODER")
AppearanceEncoderSocket.Type = AppearanceEncoder
AppearanceSocket = io.Custom("P2W_APPEARANCE")
AppearanceSocket.Type = Appearance
AttributionSocket = io.Custom("P2W_ATTRIBUTION")
AttributionSocket.Type = Attribution
GridSocket = io.Custom("P2W_GRID")
GridSocket.Type = OutfitGrid
LevelsSocket = io.Custom("P2W_LEVELS")
LevelsSocket.Type = tuple[float, ...]
CropSocket = io.Custom("P2W_CROP")
CropSocket.Type = Crop
# The host's patchers around encoders.pose_network.PoseNetwork and attention.image_attention.ImageAttention.
PoseGuiderSocket = io.Custom("P2W_POSE_GUIDER")
PoseGuiderSocket.Type = ModelPatcher
ImageAttentionSocket = io.Custom("P2W_IMAGE_ATTENTION")
ImageAttentionSocket.Type = ModelPatcher

# Where the editor's node menu has a node: by what it is for.
PARTS, POSE, ENCODE, APPLY, DETAIL, OUTFITS, LOOK = (
    f"Parts2Whole/{task}" for task in ("parts", "pose", "encode", "apply", "detail", "outfits", "look")
)


def label_inputs() -> list[io.Input]:
    """The label of a part: one of the six, or any text. Over the API any text may be given as `label` too."""
    return [
        io.Combo.Input(
            "label", options=list(LABELS), default=LABELS[0], tooltip="What the part is. The encoder reads it as text.",
        ),
        io.String.Input(
            "custom_label", default="", optional=True,
            tooltip="A label of your own, for example 'handbag'. Used instead of label unless it is empty. Up to 77 tokens.",
        ),
    ]


def parts_input() -> io.Input:
    """Slots for parts that grow."""
    return io.Autogrow.Input(
        "parts",
        template=io.Autogrow.TemplatePrefix(
            PartSocket.Input("part", tooltip="From Load Part, Load Parts, Part from Image, Photo to Parts or Label Map to Parts."),
            prefix="part", min=0, max=16
        ),
    )


def gathered(parts: dict, node: str) -> list[Part]:
    """The parts in the slots of `parts_input`. Warns of slots whose node has none to give.

    raises: ValueError where there is none
    """
    empty = [slot for slot, part in parts.items() if part is None]
    parts = [each for part in parts.values() if part is not None for each in (part if isinstance(part, tuple) else (part,))]
    if parts and empty:
        warn(
            f"no part came to {', '.join(empty)}, and the picture is made without: the photograph shows none. If it does, lower "
            "`smallest` of Photo to Parts, or paint the mask in Load Part."
        )
    if not parts:
        raise ValueError(
            f"{node} got no parts: connect at least one Load Part, Part from Image or Photo to Parts node. Where Photo to Parts is "
            "connected, the photograph shows none of these parts: lower its `smallest`, or connect others."
        )
    return parts


def frame_inputs() -> list[io.Input]:
    """The frame in which the appearance encoder sees the references."""
    return [
        io.Int.Input(
            "width", default=512, min=16, max=16384, step=8,
            tooltip="Width in pixels of the frame that the encoder sees. The public release takes the size of the result.",
        ),
        io.Int.Input(
            "height", default=768, min=16, max=16384, step=8,
            tooltip="Height in pixels of the frame that the encoder sees. The public release takes the size of the result.",
        ),
        io.Combo.Input(
            "fit", options=["stretch", "pad", "crop"], default="stretch", optional=True,
            tooltip="How a picture of another shape is fitted to the frame. stretch: as the public release was trained. pad: the "
            "whole picture, with white beside it. crop: as much as fits, with the part in the middle.",
        ),
    ]


def box_inputs() -> list[io.Input]:
    """A box of a picture, in pixels."""
    return [
        io.Int.Input("x", default=0, min=-16384, max=16384, tooltip="Left side of the box, in pixels of the picture."),
        io.Int.Input("y", default=0, min=-16384, max=16384, tooltip="Upper side of the box, in pixels of the picture."),
        io.Int.Input("width", default=0, min=0, max=16384, tooltip="Width of the box in pixels. 0: as far as the picture goes."),
        io.Int.Input("height", default=0, min=0, max=16384, tooltip="Height of the box in pixels. 0: as far as the picture goes."),
    ]


def crop_input() -> io.Input:
    """Of nodes whose picture or mask is laid over the result."""
    return CropSocket.Input(
        "crop", optional=True,
        tooltip="From Crop Box or Crop for Detail: the MODEL draws this crop of the result and gets its piece. Without it, all.",
    )


def percent_inputs() -> list[io.Input]:
    """The part of the noise schedule in which a node acts."""
    return [
        io.Float.Input(
            "start_percent", default=0.0, min=0.0, max=1.0, step=0.001, advanced=True,
            tooltip="When to begin, as a fraction of the noise schedule: 0 is pure noise.",
        ),
        io.Float.Input(
            "end_percent", default=1.0, min=0.0, max=1.0, step=0.001, advanced=True,
            tooltip="When to end, as a fraction of the noise schedule: 1 is the clean picture.",
        ),
    ]
