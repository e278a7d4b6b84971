from __future__ import annotations

from comfy_api.latest import io

from ..attention.patch.apply import crop as crop_model
from ..attention.patch.host.warnings import warn
from ..pictures.detail import crop_for_detail, paste_detail
from .node import Node
from .sockets import DETAIL, CropSocket, box_inputs


class Parts2WholeCropForDetail(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeCropForDetail",
            display_name="Crop for Detail",
            category=DETAIL,
            description="Crops and enlarges a place of the picture, to draw it again with a MODEL whose pose and regions are "
            "cut to it.",
            search_aliases=["detailer", "face detail", "hires fix", "inpaint crop", "tile", "second pass"],
            inputs=[
                io.Model.Input("model", tooltip="The MODEL that drew the picture, with all that is applied. It stays as it is."),
                io.Image.Input("image", tooltip="The whole picture."),
                io.Float.Input(
                    "factor", default=2.0, min=0.25, max=16.0, step=0.25,
                    tooltip="How many times larger the crop is drawn. Its sides become multiples of 8 pixels.",
                ),
                io.Float.Input(
                    "padding", default=0.25, min=0.0, max=4.0, step=0.05,
                    tooltip="How much of the picture there is around mask or box, as a share of the longer side.",
                ),
                *box_inputs(),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="What to crop, for example from Region from Pose or a face detector. Any size. It goes before the box.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="For the sampler that draws the crop."),
                io.Image.Output(display_name="IMAGE", tooltip="The crop, enlarged: for VAE Encode."),
                io.Mask.Output(
                    display_name="MASK", tooltip="The mask, cropped likewise: for Set Latent Noise Mask or Paste Detail. Without a "
                    "mask, 1 everywhere.",
                ),
                CropSocket.Output(display_name="CROP", tooltip="For Paste Detail."),
            ],
        )

    @classmethod
    def execute(cls, model, image, factor, padding, x, y, width, height, mask=None) -> io.NodeOutput:
        mask = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        detail = crop_for_detail(image, mask, (x, y, width, height), factor, padding)
        return io.NodeOutput(crop_model(model, detail.crop.box), *detail)


class Parts2WholePasteDetail(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePasteDetail",
            display_name="Paste Detail",
            category=DETAIL,
            description="Puts a crop that was drawn again back into the picture. Elsewhere the picture stays, to the bit.",
            search_aliases=["detailer", "stitch", "uncrop", "inpaint stitch", "tile", "composite"],
            inputs=[
                io.Image.Input("image", tooltip="The whole picture. It may be larger or smaller than when it was cropped."),
                io.Image.Input("detail", tooltip="The crop, drawn again. Of any size: it is scaled to its place."),
                CropSocket.Input("crop", tooltip="From Crop for Detail."),
                io.Int.Input(
                    "feather", default=16, min=0, max=1024,
                    tooltip="Over how many pixels of the whole picture both blend, inside of the crop.",
                ),
                io.Mask.Input(
                    "mask", optional=True,
                    tooltip="What of the detail is taken: the MASK of Crop for Detail, or another of the crop. Without it, all.",
                ),
            ],
            outputs=[io.Image.Output()],
        )

    @classmethod
    def execute(cls, image, detail, crop, feather, mask=None) -> io.NodeOutput:
        mask = None if mask is None else mask.reshape(-1, *mask.shape[-2:])
        height, width = image.shape[1:3]
        if not crop.fits(width, height):
            warn(
                f"the picture is {width}x{height}, and was cropped from one of another shape, {crop.of_width}x{crop.of_height}: "
                "the detail is stretched, and lies elsewhere. Connect the picture that Crop for Detail got, or the same enlarged."
            )
        return io.NodeOutput(paste_detail(image, detail, crop, mask, feather))
