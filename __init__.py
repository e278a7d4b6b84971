"""Parts2Whole for ComfyUI: composes one human picture from reference pictures of parts."""

from comfy_api.latest import ComfyExtension, io

from .encoders.checkpoint import files as checkpoint_files
from .nodes.apply_image_attention import Parts2WholeApplyImageAttention
from .nodes.apply_parts import Parts2WholeApply
from .nodes.apply_pose import Parts2WholeApplyPose
from .nodes.attribution import Parts2WholeRecordAttribution, Parts2WholeShowAttribution
from .nodes.combine_appearances import Parts2WholeCombineAppearances
from .nodes.crop_box import Parts2WholeCropBox
from .nodes.describe_parts import Parts2WholeCutOut, Parts2WholeDescribeParts
from .nodes.detail import Parts2WholeCropForDetail, Parts2WholePasteDetail
from .nodes.encode_appearance import Parts2WholeEncodeAppearance
from .nodes.encode_labels import Parts2WholeEncodeLabels
from .nodes.levels import Parts2WholeLevels
from .nodes.load_checkpoint import Parts2WholeLoader
from .nodes.load_part import Parts2WholeLoadPart
from .nodes.load_parts import Parts2WholeLoadParts
from .nodes.make_part import Parts2WholeMakePart
from .nodes.model_as_encoder import Parts2WholeModelAsEncoder
from .nodes.outfit_grid import Parts2WholeOutfitGrid, Parts2WholeOutfitSheet
from .nodes.people import Parts2WholePeople
from .nodes.photo_to_parts import Parts2WholeLabelMapToParts, Parts2WholePhotoToParts
from .nodes.pose_from_photo import Parts2WholePoseFromPhoto
from .nodes.pose_region import Parts2WholePoseRegion
from .nodes.pose_to_iuv import Parts2WholePoseToIUV
from .nodes.preview_parts import Parts2WholePreviewParts
from .nodes.reference_parts import Parts2WholeApplyReferences, Parts2WholeReferenceParts
from .nodes.refine_mask import Parts2WholeRefineMask
from .nodes.sigmas import Parts2WholeSigmas
from .nodes.wardrobe import Parts2WholeLoadAppearance, Parts2WholeSaveAppearance
from .pictures import densepose, human_parsing
from .pictures.example_pictures import copy_example_pictures

WEB_DIRECTORY = "./web"


class Parts2WholeExtension(ComfyExtension):
    async def on_load(self):
        checkpoint_files.register_folder()
        human_parsing.register_folder()
        densepose.register_folder()
        copy_example_pictures()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            Parts2WholeLoader,
            Parts2WholeLoadPart,
            Parts2WholeLoadParts,
            Parts2WholeMakePart,
            Parts2WholeRefineMask,
            Parts2WholePhotoToParts,
            Parts2WholeLabelMapToParts,
            Parts2WholeEncodeLabels,
            Parts2WholePreviewParts,
            Parts2WholeOutfitGrid,
            Parts2WholeOutfitSheet,
            Parts2WholeEncodeAppearance,
            Parts2WholeCombineAppearances,
            Parts2WholeSaveAppearance,
            Parts2WholeLoadAppearance,
            Parts2WholePoseFromPhoto,
            Parts2WholePoseToIUV,
            Parts2WholePoseRegion,
            Parts2WholePeople,
            Parts2WholeLevels,
            Parts2WholeApply,
            Parts2WholeApplyPose,
            Parts2WholeApplyImageAttention,
            Parts2WholeCropForDetail,
            Parts2WholePasteDetail,
            Parts2WholeCropBox,
            Parts2WholeModelAsEncoder,
            Parts2WholeDescribeParts,
            Parts2WholeCutOut,
            Parts2WholeReferenceParts,
            Parts2WholeApplyReferences,
            Parts2WholeSigmas,
            Parts2WholeRecordAttribution,
            Parts2WholeShowAttribution,
        ]


async def comfy_entrypoint() -> Parts2WholeExtension:
    return Parts2WholeExtension()
