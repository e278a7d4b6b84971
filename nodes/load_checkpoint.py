from __future__ import annotations

from comfy_api.latest import io

from ..encoders.checkpoint.files import checkpoint_folder, list_checkpoints
from ..encoders.checkpoint.load import load_checkpoint
from .node import Node
from .sockets import ENCODE, AppearanceEncoderSocket, ImageAttentionSocket, PoseGuiderSocket


class Parts2WholeLoader(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholeLoader",
            display_name="Load Parts2Whole",
            category=ENCODE,
            description="Loads a Parts2Whole checkpoint: a folder as downloaded from huanngzh/Parts2Whole, or the small paper_doll "
            "of this pack.",
            search_aliases=[
                "parts to whole", "load p2w", "human composition", "virtual try-on", "try-on", "person",
                "character", "consistency", "换装", "人物",
            ],
            inputs=[
                io.Combo.Input(
                    "checkpoint", options=list_checkpoints(),
                    tooltip="A folder under models/parts2whole or models/diffusers (or under these keys of "
                    "extra_model_paths.yaml) that has a reference_unet folder in it. paper_doll comes with this pack: it draws "
                    "small figures and needs no download.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The denoising U-Net, with the checkpoint's own noise schedule."),
                io.Clip.Output(tooltip="For the prompts and for Encode Part Labels."),
                io.Vae.Output(tooltip="For Encode Appearance and VAE Decode."),
                io.ClipVision.Output(tooltip="For Apply Part Image Attention."),
                AppearanceEncoderSocket.Output(display_name="APPEARANCE_ENCODER", tooltip="For Encode Appearance."),
                PoseGuiderSocket.Output(display_name="POSE_GUIDER", tooltip="For Apply Pose Guider."),
                ImageAttentionSocket.Output(display_name="IMAGE_ATTENTION", tooltip="For Apply Part Image Attention."),
            ],
        )

    @classmethod
    def validate_inputs(cls, checkpoint=None) -> bool | str:
        # The host's own "not in list" does not say where checkpoints go.
        try:
            return checkpoint is None or bool(checkpoint_folder(checkpoint))
        except FileNotFoundError as error:
            return str(error)

    @classmethod
    def execute(cls, checkpoint) -> io.NodeOutput:
        return io.NodeOutput(*load_checkpoint(checkpoint_folder(checkpoint)))
