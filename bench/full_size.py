"""The whole workflow at the release's size, 512x768, in the real server, with random weights in the release's layout.

    make full-size [PICTURES=folder] [STEPS=2] [PHOTOS=1]

The checkpoint is made once, about 6 GB, in PARTS2WHOLE_CACHE. PICTURES is a folder with photographs of parts: a part is
<label>_<n>.jpg or .png, with underscores in the label, its mask <label>_<n>_mask.jpg, and the pose densepose*.png. Without
it the small pictures of the tests are used. With PHOTOS the way begins at photographs: the workflow from_photos, with a human
parser and a DensePose model of random weights too, to a picture whose face was drawn again. Prints the time of every node and the
server's peak memory.
"""

import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.cpu = True

import comfy.diffusers_convert  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.utils  # noqa: E402
import torch  # noqa: E402
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel  # noqa: E402
from harness.server import ROOT, ComfyServer  # noqa: E402
from photographs import make_photo_workflow  # noqa: E402
from safetensors.torch import save_file  # noqa: E402
from transformers import CLIPTextConfig, CLIPTextModel, CLIPVisionConfig, CLIPVisionModelWithProjection  # noqa: E402

TINY = ROOT / "tests" / "golden" / "checkpoint"
MEMORY_LIMIT = 20e9
LABELS = ("face", "hair or headwear", "upper body clothes", "lower body clothes", "whole body clothes", "shoes")

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320, "channel_mult": [1, 2, 4, 4],
    "num_res_blocks": [2, 2, 2, 2], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
    "transformer_depth_output": [1] * 9 + [0] * 3, "context_dim": 768, "num_heads": 8, "use_spatial_transformer": True,
    "use_linear_in_transformer": False, "adm_in_channels": None, "legacy": False,
}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3, "ch": 128, "ch_mult": [1, 2, 4, 4],
    "num_res_blocks": 2, "attn_resolutions": [], "dropout": 0.0,
}
TEXT = {"hidden_size": 768, "intermediate_size": 3072, "num_attention_heads": 12, "num_hidden_layers": 12}
VISION = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_hidden_layers": 24, "patch_size": 14,
    "image_size": 224, "projection_dim": 768,
}
CONFIG_CHANGES = {
    "unet": {"block_out_channels": [320, 640, 1280, 1280], "attention_head_dim": 8, "cross_attention_dim": 768},
    "vae": {"block_out_channels": [128, 256, 512, 512]},
    "text_encoder": TEXT,
    "image_encoder": VISION,
    "pose_guider": {"conditioning_embedding_channels": 320},
}
CONFIG_CHANGES["reference_unet"] = CONFIG_CHANGES["unet"]
# The layers that the release's reference U-Net lacks.
AFTER_LAST_NORM1 = ("conv_norm_out.", "conv_out.", *(f"up_blocks.3.attentions.2.{name}" for name in (
    "proj_out", *(f"transformer_blocks.0.{name}" for name in ("attn1", "attn2", "norm2", "norm3", "ff"))
)))


def random_weights(shapes: dict[str, torch.Size], dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Weights that keep activations at a size of about one: normal over the square root of the fan-in; norms are 1 and 0."""
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            fan_in = shape[1:].numel() if "embedding" not in name else 1000
            weights[name] = (torch.randn(shape, generator=generator) / fan_in**0.5).to(dtype)
        else:
            weights[name] = torch.full(shape, float(name.endswith("weight")), dtype=dtype)
    return weights


def shapes(module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in module.state_dict().items() if "position_ids" not in name}


def vae_diffusers_name(name: str) -> str:
    prefix, attention, layer = name.partition("mid.attn_1.")
    if attention:
        layer, _, tensor = layer.partition(".")
        layers = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "proj_out": "to_out.0"}
        return f"{prefix}mid_block.attentions.0.{layers[layer]}.{tensor}"
    for theirs, diffusers in comfy.diffusers_convert.vae_conversion_map:
        name = name.replace(theirs, diffusers)
    return name


def make_checkpoint(folder: Path):
    print(f"Making a checkpoint of random weights in {folder} ...", flush=True)
    shutil.copytree(TINY, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.pth"))
    for component, changes in CONFIG_CHANGES.items():
        path = folder / component / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}, indent=2))

    with torch.device("meta"):
        unet = UNetModel(**UNET, device="meta", dtype=torch.float32, operations=comfy.ops.disable_weight_init)
        vae = AutoencoderKL(ddconfig=VAE, embed_dim=4)
        text = CLIPTextModel(CLIPTextConfig(**TEXT, vocab_size=49408))
        vision = CLIPVisionModelWithProjection(CLIPVisionConfig(**VISION))
    names = {name: diffusers_name for diffusers_name, name in comfy.utils.unet_to_diffusers(UNET).items()}
    unet_shapes = {names[name]: shape for name, shape in shapes(unet).items()}
    image_attention = {
        name.replace("attn2.to_", "attn2.processor.to_").replace(".weight", "_dc.weight"): shape
        for name, shape in unet_shapes.items() if name.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
    }
    reference_unet = {name: shape for name, shape in unet_shapes.items() if not name.startswith(AFTER_LAST_NORM1)}
    vae_shapes = {
        vae_diffusers_name(name): shape[:2] if ".attn_1." in name and len(shape) == 4 else shape
        for name, shape in shapes(vae).items()
    }
    # transformers 5 leaves out the prefix that files have.
    text_shapes = {f"text_model.{name.removeprefix('text_model.')}": shape for name, shape in shapes(text).items()}
    pose = {"conv_in": (16, 3), "conv_out": (320, 256)}
    pose |= {f"blocks.{i}": widths for i, widths in enumerate([(16, 16), (32, 16), (32, 32), (96, 32), (96, 96), (256, 96)])}
    pose_shapes = {f"{name}.weight": torch.Size((*widths, 3, 3)) for name, widths in pose.items()}
    pose_shapes |= {f"{name}.bias": torch.Size(widths[:1]) for name, widths in pose.items()}

    for file, tensors, dtype in (
        ("unet/diffusion_pytorch_model.safetensors", unet_shapes | image_attention, torch.float32),
        ("reference_unet/diffusion_pytorch_model.safetensors", reference_unet, torch.float16),
        ("vae/diffusion_pytorch_model.safetensors", vae_shapes, torch.float16),
        ("text_encoder/model.safetensors", text_shapes, torch.float16),
        ("image_encoder/model.safetensors", shapes(vision), torch.float16),
        ("pose_guider/diffusion_pytorch_model.safetensors", pose_shapes, torch.float32),
        ("decoupled_attn.pth", image_attention, torch.float32),
    ):
        save_file(random_weights(tensors, dtype), folder / file)


def find_pictures(folder: Path) -> tuple[list[tuple[str, Path, Path | None]], Path]:
    """Parts as (label, picture, mask), and the pose."""
    parts = []
    for label in LABELS:
        stems = {label.replace(" ", "_"), label.replace(" or ", "_and_").replace(" ", "_")}
        pictures = sorted(
            path for path in folder.iterdir()
            if path.stem.rsplit("_", 1)[0] in stems and path.suffix in (".jpg", ".png")
        )
        if pictures:
            mask = pictures[0].with_name(f"{pictures[0].stem}_mask{pictures[0].suffix}")
            parts.append((label, pictures[0], mask if mask.exists() else None))
    return parts, next(folder.glob("densepose*.png"))


def make_workflow(server: ComfyServer, folder: str | None, steps: int) -> dict:
    """workflows/api/parts_to_whole.json with the given pictures: masks by core's Load Image (as Mask)."""
    if folder:
        parts, pose = find_pictures(Path(folder))
    else:
        images = ROOT / "tests" / "golden" / "images"
        parts = [("face", images / "ref_0.png", images / "mask_0.png"), ("upper body clothes", images / "ref_1.png", None),
                 ("shoes", images / "ref_2.png", None)]
        pose = images / "pose.png"
    workflow = json.loads((ROOT / "workflows" / "api" / "parts_to_whole.json").read_text())
    workflow["5"]["inputs"] = {"clip": workflow["5"]["inputs"]["clip"]}
    for node in ("2", "3", "4"):
        del workflow[node]
    for i, (label, picture, mask) in enumerate(parts):
        shutil.copy(picture, server.base / "input")
        inputs = {"image": picture.name, "label": label}
        if mask:
            shutil.copy(mask, server.base / "input")
            workflow[f"mask{i}"] = {"class_type": "LoadImageMask", "inputs": {"image": mask.name, "channel": "red"}}
            inputs["mask"] = [f"mask{i}", 0]
        workflow[f"part{i}"] = {"class_type": "Parts2WholeLoadPart", "inputs": inputs}
        workflow["5"]["inputs"][f"parts.part{i}"] = [f"part{i}", 0]
    shutil.copy(pose, server.base / "input")
    workflow["10"]["inputs"]["image"] = pose.name
    workflow["1"]["inputs"]["checkpoint"] = "full-size"
    workflow["16"]["inputs"]["steps"] = steps
    print(f"{len(parts)} parts: {', '.join(label for label, _, _ in parts)}; {steps} steps", flush=True)
    return workflow


class Stopwatch:
    """Prints the time of every node."""

    def __init__(self, workflow: dict):
        self.workflow, self.node, self.begin = workflow, None, time.monotonic()

    def __call__(self, message: dict):
        if message["type"] == "executing":
            now = time.monotonic()
            if self.node and now - self.begin > 0.1:
                print(f"  {self.workflow[self.node]['class_type']:32} {now - self.begin:7.1f} s", flush=True)
            self.node, self.begin = message["data"]["node"], now


def peak_memory(pid: int) -> float:
    """The largest resident memory of a process so far, in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return float(status.split("VmHWM:")[1].split()[0]) * 1024


def main():
    cache = Path(os.environ.get("PARTS2WHOLE_CACHE") or Path.home() / ".cache" / "parts2whole")
    checkpoint = cache / "full-size"
    if not checkpoint.exists():
        shutil.rmtree(cache / "full-size.part", ignore_errors=True)
        make_checkpoint(cache / "full-size.part")
        (cache / "full-size.part").rename(checkpoint)

    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(Path(folder), "--use-pytorch-cross-attention")
        (server.base / "models" / "parts2whole" / "full-size").symlink_to(checkpoint)
        steps = int(os.environ.get("STEPS", 2))
        if os.environ.get("PHOTOS"):
            workflow = make_photo_workflow(server, cache, steps)
        else:
            workflow = make_workflow(server, os.environ.get("PICTURES"), steps)
        with server:
            begin = time.monotonic()
            outputs = server.run(workflow, Stopwatch(workflow))
            total, peak = time.monotonic() - begin, peak_memory(server.process.pid)
            path = ROOT / "output" / "full_size.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(server.view(outputs["18"]["images"][0]))
    print(f"  in all {total:.1f} s; the server's peak memory {peak / 1e9:.1f} GB; picture: {path}")
    if peak > MEMORY_LIMIT:
        sys.exit(f"More than {MEMORY_LIMIT / 1e9:.0f} GB of memory.")


if __name__ == "__main__":
    main()
