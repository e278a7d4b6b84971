"""What the workflow from_photos needs beside the checkpoint, at the size of what users download, with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision.models.detection.backbone_utils as backbones
from harness.densepose_models import drawn, save_module
from harness.server import ROOT, ComfyServer
from PIL import Image
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

# mattmdjaga/segformer_b2_clothes: 27 million weights, 18 classes of ATR.
SEGFORMER = {
    "hidden_sizes": [64, 128, 320, 512], "depths": [3, 4, 6, 3], "num_attention_heads": [1, 2, 5, 8], "decoder_hidden_size": 768,
    "sr_ratios": [8, 4, 2, 1],
}
CLASSES = [
    "Background", "Hat", "Hair", "Sunglasses", "Upper-clothes", "Skirt", "Pants", "Dress", "Belt", "Left-shoe", "Right-shoe",
    "Face", "Left-leg", "Right-leg", "Left-arm", "Right-arm", "Bag", "Scarf",
]
PHOTO = 1101, 750
PERSON = [100.0, 30, 420, 740]


class DensePose(torch.nn.Module):
    """Looks at a picture with ResNet-101 and its feature pyramid, 45 million weights in float32 and the most of such a model's
    work, and answers with a drawn person."""

    def __init__(self):
        super().__init__()
        self.backbone = backbones.resnet_fpn_backbone(backbone_name="resnet101", weights=None, trainable_layers=0)
        for name, tensor in zip(("coarse", "fine", "u", "v"), drawn()):
            self.register_buffer(name, tensor)
        self.register_buffer("boxes", torch.tensor([PERSON]))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        picture = F.interpolate(image[None].float() / 255, scale_factor=800 / 512, mode="bilinear")
        seen = self.backbone(picture)["0"].mean() * 0
        return self.boxes + seen, self.coarse, self.fine, self.u, self.v


def make_models(folder: Path):
    """human_parsing and densepose in a folder, as models has them."""
    torch.manual_seed(0)
    parser = folder / "human_parsing" / "segformer_b2_clothes"
    SegformerForSemanticSegmentation(SegformerConfig(**SEGFORMER, id2label=dict(enumerate(CLASSES)))).save_pretrained(parser)
    SegformerImageProcessor(size={"height": 512, "width": 512}).save_pretrained(parser)
    save_module(DensePose().eval(), folder / "densepose" / "densepose_r50_fpn_dl.torchscript")


def make_photo_workflow(server: ComfyServer, cache: Path, steps: int) -> dict:
    """workflows/api/from_photos.json with photographs of coloured noise, of the size of DeepFashion's. Its second pass, over the
    head that the DensePose model draws, takes as many steps."""
    models = cache / "full-size-photographs"
    if not models.exists():
        shutil.rmtree(cache / "full-size-photographs.part", ignore_errors=True)
        make_models(cache / "full-size-photographs.part")
        (cache / "full-size-photographs.part").rename(models)
    for kind in ("human_parsing", "densepose"):
        (server.base / "models" / kind).symlink_to(models / kind)
    workflow = json.loads((ROOT / "workflows" / "api" / "from_photos.json").read_text())
    generator = torch.Generator().manual_seed(0)
    for id, node in workflow.items():
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = f"photograph_{id}.png"
            noise = F.interpolate(torch.rand(1, 3, 9, 6, generator=generator), PHOTO, mode="bicubic")[0].clamp(0, 1)
            pixels = (noise.movedim(0, -1) * 255).byte().numpy()
            Image.fromarray(pixels).save(server.base / "input" / node["inputs"]["image"])
        elif node["class_type"] == "Parts2WholeLoader":
            node["inputs"]["checkpoint"] = "full-size"
        elif node["class_type"] == "KSampler":
            node["inputs"]["steps"] = steps
    print(f"from photographs; {steps} steps", flush=True)
    return workflow
