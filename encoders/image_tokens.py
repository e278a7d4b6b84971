"""CLIP image tokens: one for each original reference picture (arXiv 2404.15267, section 3.4)."""

from __future__ import annotations

import comfy.model_management
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher

from ..attention.image_attention import MAX_IMAGE_TOKENS, ImageAttention
from ..attention.patch.applied import AppliedImageAttention
from ..pictures.frame import resize_bicubic
from ..pictures.part import LabelledPart


def attend_to_images(
    image_attention: ModelPatcher, clip_vision, parts: tuple[LabelledPart, ...], strength: float
) -> AppliedImageAttention:
    """Projects the image tokens of the parts to keys and values of every cross-attention layer.

    image_attention: the patcher of an `attention.image_attention.ImageAttention`
    raises: ValueError for more than six pictures, for what is no image attention, and for a CLIP_VISION of another kind or with
        tokens of another width than the projections take
    """
    mend = "Take CLIP_VISION and IMAGE_ATTENTION from the same Load Parts2Whole node."
    if not isinstance(image_attention.model, ImageAttention):
        raise ValueError(f"The IMAGE_ATTENTION is a {type(image_attention.model).__name__}. {mend}")
    expected = image_attention.model.token_channels
    kind = getattr(clip_vision, "model_type", "clip_vision_model")
    if kind != "clip_vision_model":
        raise ValueError(f"The CLIP_VISION is a {kind}, expected a CLIP vision model with projected embeddings. {mend}")
    # Before any picture is encoded, where it tells.
    channels = getattr(clip_vision, "config", {}).get("projection_dim", expected)
    tokens = image_tokens(clip_vision, parts) if channels == expected else torch.empty(0, channels)
    if tokens.shape[-1] != expected:
        raise ValueError(
            f"The CLIP_VISION gives tokens of {tokens.shape[-1]} channels, the image attention expects {expected}. {mend}"
        )
    comfy.model_management.load_models_gpu([image_attention])
    keys = image_attention.model(tokens.to(image_attention.load_device))
    return AppliedImageAttention(keys, image_attention.model.context_channels, strength)


def image_tokens(clip_vision, parts: tuple[LabelledPart, ...]) -> torch.Tensor:
    """The projected CLIP embedding of every picture, as it came: alpha dropped, neither composited nor masked.

    returns: [1, 6, D]; unused tokens are zero, and as trained they take part in the attention
    raises: ValueError for more than six pictures
    """
    pictures = [picture[..., :3] for part, _, _ in parts for picture in part.image]
    if len(pictures) > MAX_IMAGE_TOKENS:
        raise ValueError(
            f"Apply Part Image Attention takes at most {MAX_IMAGE_TOKENS} reference pictures, got {len(pictures)}. Connect it "
            "to an Encode Part Labels node with fewer parts; Apply Parts2Whole takes all of them."
        )
    progress = comfy.utils.ProgressBar(len(pictures))
    tokens = []
    for picture in pictures:
        comfy.model_management.throw_exception_if_processing_interrupted()
        tokens.append(clip_vision.encode_image(_crop_square(picture, clip_vision.image_size))["image_embeds"])
        progress.update(1)
    tokens = torch.cat(tokens).float()
    return torch.nn.functional.pad(tokens, (0, 0, 0, MAX_IMAGE_TOKENS - len(tokens)))[None]


def _crop_square(picture: torch.Tensor, size: int) -> torch.Tensor:
    """[H, W, 3] -> [1, size, size, 3]: shortest edge to size, then the centre, as CLIP's image processor does on Pillow.

    The host's own crop resizes with torch, which differs by 1 of 255 here and there: enough to miss the release's numbers.
    """
    height, width = picture.shape[:2]
    picture = picture[_middle(height, width), _middle(width, height)]
    height, width = picture.shape[:2]
    short = min(height, width)
    height, width = size * height // short, size * width // short
    picture = resize_bicubic(picture, width, height)
    top, left = (height - size) // 2, (width - size) // 2
    return picture[None, top:top + size, left:left + size]


def _middle(length: int, across: int) -> slice:
    """Of a side more than ten times as long as the one across it, the middle: the crop sees no more than the middle of that."""
    beyond = max(0, length - 10 * across) // 2
    return slice(beyond, length - beyond)
