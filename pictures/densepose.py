"""A photograph of a person becomes the raw IUV picture of the pose: by a DensePose model in a TorchScript file."""

from __future__ import annotations

import glob
import os

import comfy.model_management
import comfy.utils
import folder_paths
import torch
import torch.nn.functional as F

from .densepose_maps import People, find_people, iuv_of, largest_first, scaled
from .model_folders import choices, names_below, path_below
from .on_device import device_of, load_whole
from .torchscript import last_line, load_torchscript

FOLDER = "densepose"
ENDINGS = (".torchscript", ".ts", ".pt", ".pth")
# The preprocessors of the ControlNet auxiliary nodes keep their copy below their own folder, or where this variable says.
PREPROCESSORS, THEIR_FOLDER = "*controlnet_aux*", "AUX_ANNOTATOR_CKPTS_PATH"
THEIR_MODEL = os.path.join("*", "DensePose-TorchScript*")
MEND = (
    "Expected densepose_r50_fpn_dl.torchscript of LayerNorm/DensePose-TorchScript-with-hint-image, or a release file of "
    "dajes/DensePose-TorchScript: download it again."
)
# The exports that give a tuple are used with: pixels of the shorter side, the most of the longer one, a multiple of both.
SHORTER, LONGEST, MULTIPLE = 512, 2048, 64
# Of the networks' activations, at a size of about 800x1333 in float32: a rough figure.
MEMORY = 2 * 2**30
TUPLE, DICTIONARY = "TupleType", "DictType"
OUT_OF_MEMORY = "out of memory", "can't allocate memory"  # CUDA's words, and those of the CPU


def register_folder():
    """Adds models/densepose to the host's folders."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))


def list_densepose() -> list[str]:
    """Files in models/densepose, and the preprocessors' own where there is one; or that there are none."""
    return choices(names_below(_roots(), _is_model), f"models/{FOLDER}")


def densepose_file(name: str) -> str:
    """raises: FileNotFoundError that says what to put where"""
    return path_below(
        name, _roots(), _is_model, "DensePose model",
        f"Put a DensePose model in TorchScript into {os.path.join(folder_paths.models_dir, FOLDER)}, for example "
        "densepose_r50_fpn_dl.torchscript of huggingface.co/LayerNorm/DensePose-TorchScript-with-hint-image, and refresh "
        "the editor.",
    )


def pose_of_photo(images: torch.Tensor, path: str, person: int, swap_uv: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Finds one person's pose in each photograph.

    images: [B, H, W, 3 or 4] in 0..1
    path: of a TorchScript file, which is code and runs
    person: 0 for the largest
    swap_uv: where a model has U and V the other way round
    returns: raw IUV [B, H, W, 3] in 0..1, part index in blue, U in green, V in red; and the body [B, H, W], 0 or 1
    raises: ValueError for a file that is no DensePose model, and for pictures that do not show that person
    """
    progress = comfy.utils.ProgressBar(1 + len(images))
    model = load_torchscript(path, MEND)
    convention = _convention(model, path)
    patcher = load_whole(model, _device(), MEMORY)
    progress.update(1)
    found = []
    for i, image in enumerate(images):
        comfy.model_management.throw_exception_if_processing_interrupted()
        try:
            people = _people(model, convention, image[..., :3], device_of(patcher))
            iuv, body = _chosen(people, *image.shape[:2], person)
        except ValueError as error:
            where = f"Picture {i + 1} of {len(images)}: " if len(images) > 1 else ""
            raise ValueError(f"{where}{error}") from error
        found.append((iuv[..., [1, 0, 2]] if swap_uv else iuv, body))
        progress.update(1)
    return tuple(torch.stack(each) for each in zip(*found))


def _convention(model: torch.jit.ScriptModule, path: str) -> str:
    """How a model is called, by what it says that it returns. raises: ValueError for any other model"""
    schema = getattr(model.forward, "schema", None) if hasattr(model, "forward") else None
    if schema is not None:
        needed = [argument for argument in schema.arguments[1:] if not argument.has_default_value()]
        kinds = [value.type.kind() for value in schema.returns]
        if len(needed) == 1 and needed[0].type.kind() == "TensorType" and kinds in ([TUPLE], [DICTIONARY]):
            return kinds[0]
    raise ValueError(
        f"{path} is not a DensePose model: it is called as {schema or 'nothing'}. Expected one picture, and a tuple or dictionary "
        f"of tensors for it. {MEND}"
    )


def _device() -> torch.device:
    """The host's device, where it is the CPU, or CUDA's kind: others lack operators of such models, as torchvision's nms."""
    device = comfy.model_management.get_torch_device()
    return device if device.type == "cuda" else torch.device("cpu")


def _people(model: torch.jit.ScriptModule, convention: str, image: torch.Tensor, device: torch.device) -> People:
    """Everyone in a picture, in its pixels. image: [H, W, 3] in 0..1"""
    height, width = image.shape[:2]
    x = y = 1.0
    if convention == TUPLE:
        pixels, x, y = _prepared(image)
    else:
        # Such a model takes OpenCV's order, [H, W, BGR], and scales the picture by itself before it takes it to its own device:
        # on the CPU, since CUDA scales no bytes.
        pixels, device = image.flip(-1), torch.device("cpu")
    pixels = (pixels.cpu().clamp(0, 1) * 255).round().byte().contiguous().to(device)
    try:
        # Not optimized: fused kernels of a later call would give other numbers than those of the first.
        with torch.jit.optimized_execution(False):
            output = model(pixels)
    except (RuntimeError, torch.jit.Error) as error:
        if any(words in str(error) for words in OUT_OF_MEMORY):
            # Of what fails in it TorchScript keeps the text and not the kind, by which the host frees memory.
            raise torch.OutOfMemoryError(f"The DensePose model on a picture of {width}x{height}: {last_line(error)}") from error
        raise ValueError(
            f"The DensePose model failed on a picture of {width}x{height}: {last_line(error)}. {MEND}"
        ) from error
    return scaled(find_people(output), x, y)


def _prepared(image: torch.Tensor) -> tuple[torch.Tensor, float, float]:
    """As [3, H, W], RGB, in the size at which the exports are used; its borders go on to the right and below up to a multiple.

    image: [H, W, 3] in 0..1
    returns: the picture, and how many times the given one is as wide and as high
    """
    height, width = image.shape[:2]
    scale = min(SHORTER / min(height, width), LONGEST / max(height, width))
    high, wide = max(round(height * scale), 1), max(round(width * scale), 1)
    picture = image.cpu().float().clamp(0, 1).movedim(-1, 0)[None]
    if (high, wide) != (height, width):
        picture = comfy.utils.common_upscale(picture, wide, high, "lanczos", "disabled")
    padded = F.pad(picture, (0, -wide % MULTIPLE, 0, -high % MULTIPLE), mode="replicate")[0]
    return padded, width / wide, height / high


def _chosen(people: People, height: int, width: int, person: int) -> tuple[torch.Tensor, torch.Tensor]:
    order = largest_first(people.boxes, height, width)
    if not order:
        raise ValueError(
            "The DensePose model finds no person. Take a photograph that shows one more clearly, from head to foot at best."
        )
    if not 0 <= person < len(order):
        shown = "1 person" if len(order) == 1 else f"{len(order)} people"
        raise ValueError(
            f"The DensePose model finds {shown}, and `person` is {person}. 0 is the largest, {len(order) - 1} the smallest."
        )
    iuv, body = iuv_of(people, order[person], height, width)
    if not body.any():
        raise ValueError(f"The DensePose model finds no body in the box of person {person}. Choose another, or another photograph.")
    return iuv, body


def _is_model(path: str) -> bool:
    return path.lower().endswith(ENDINGS) and os.path.isfile(path)


def _roots() -> list[str]:
    """models/densepose, and the folders in which the preprocessors look for their model."""
    theirs = [os.environ.get(THEIR_FOLDER), *(
        path for folder in folder_paths.get_folder_paths("custom_nodes")
        for path in sorted(glob.glob(os.path.join(glob.escape(folder), PREPROCESSORS, "ckpts")))
    )]
    found = [path for root in theirs if root for path in sorted(glob.glob(os.path.join(glob.escape(root), THEIR_MODEL)))]
    return [*folder_paths.get_folder_paths(FOLDER), *dict.fromkeys(found)]
