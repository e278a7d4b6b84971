"""An edit model in the real server: a tiny Flux with random weights, loaded from its files as a user loads one."""

import comfy.taesd.taesd
import pytest
from harness.edit_models import FLUX, edit_model, randomise
from harness.host import ROOT
from safetensors.torch import save_file

from training.paper_dolls.examples import file_name

PARTS = ("face", "upper body clothes", "shoes")


@pytest.fixture(scope="module")
def files(server):
    """Heads as wide as the host expects them, and a text as wide as that of the paper-doll model."""
    flux = FLUX | {"hidden_size": 128, "num_heads": 1, "axes_dim": [16, 56, 56], "vec_in_dim": None, "context_in_dim": 32}
    model = edit_model("flux", **flux | {"mlp_ratio": 4.0}).model.diffusion_model
    autoencoder = comfy.taesd.taesd.TAESD(latent_channels=16)
    randomise(autoencoder)
    for module, folder in ((model, "diffusion_models"), (autoencoder, "vae")):
        path = server.base / "models" / folder
        path.mkdir(parents=True, exist_ok=True)
        save_file({name: tensor.contiguous() for name, tensor in module.state_dict().items()}, path / "tiny_edit.safetensors")


def workflow(**apply) -> dict:
    """The template's way from parts to a picture, with a recorder between; apply: inputs of Apply Reference Parts."""
    nodes = {
        "clip": ("Parts2WholeLoader", {"checkpoint": "paper_doll"}),
        "unet": ("UNETLoader", {"unet_name": "tiny_edit.safetensors", "weight_dtype": "default"}),
        "vae": ("VAELoader", {"vae_name": "tiny_edit.safetensors"}),
        "apply": ("Parts2WholeApplyReferences", {"model": ["unet", 0], "start_percent": 0.0, "end_percent": 1.0} | apply),
        "record": ("Parts2WholeRecordAttribution", {"model": ["apply", 0]}),
        "describe": ("Parts2WholeDescribeParts", {
            "prompt": "{parts} A person.", "sentence": "Image {number}: the {label}.", "first_number": 1,
            **{f"parts.part{i}": [label, 0] for i, label in enumerate(PARTS)},
        }),
        "text": ("CLIPTextEncode", {"clip": ["clip", 1], "text": ["describe", 1]}),
        "references": ("Parts2WholeReferenceParts", {
            "conditioning": ["text", 0], "vae": ["vae", 0], "parts": ["describe", 0], "fit": "crop", "megapixels": 0.01,
            "strength": 1.5,
        }),
        "negative": ("ConditioningZeroOut", {"conditioning": ["text", 0]}),
        "latent": ("EmptySD3LatentImage", {"width": 64, "height": 96, "batch_size": 1}),
        "sample": ("KSampler", {
            "model": ["record", 0], "positive": ["references", 0], "negative": ["negative", 0], "latent_image": ["latent", 0],
            "seed": 0, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0,
        }),
        "decode": ("VAEDecode", {"samples": ["sample", 0], "vae": ["vae", 0]}),
        "save": ("SaveImage", {"images": ["decode", 0], "filename_prefix": "edit"}),
        "show": ("Parts2WholeShowAttribution", {"attribution": ["record", 1], "latent": ["sample", 0], "image": ["decode", 0]}),
        "cut": ("Parts2WholeCutOut", {"part": ["shoes", 0], "fit": "crop"}),
        "see": ("PreviewImage", {"images": ["cut", 0]}),
    }
    for label in PARTS:
        picture = file_name(label)
        assert (ROOT / "workflows" / "input" / picture).is_file()
        nodes[label] = ("Parts2WholeLoadPart", {"image": picture, "label": label, "custom_label": "", "mask_source": "auto"})
    return {id: {"class_type": kind, "inputs": inputs} for id, (kind, inputs) in nodes.items()}


def test_parts_become_a_picture_and_heat_maps(server, files):
    outputs = server.run(workflow())
    drawn = {node: output for node, output in outputs.items() if "parts2whole_kept" not in output}
    pictures = {node: [server.view(image) for image in output["images"]] for node, output in drawn.items()}
    assert pictures.keys() == {"save", "show", "see"} and all(len(each) == 1 for each in pictures.values())
    never = workflow(end_percent=0.0, start_percent=0.0)
    other = server.run({id: node for id, node in never.items() if id not in ("show", "cut", "see")})["save"]["images"][0]
    assert server.view(other) != pictures["save"][0]


def test_a_model_without_apply_stops_with_words(server, files):
    prompt = workflow()
    prompt["record"]["inputs"]["model"] = ["unet", 0]
    with pytest.raises(RuntimeError, match="Connect Apply Reference Parts between the model loader and the sampler"):
        server.run(prompt)


def test_a_u_net_is_refused_with_words(server, files):
    prompt = workflow()
    prompt["apply"]["inputs"]["model"] = ["clip", 0]
    with pytest.raises(RuntimeError, match="The MODEL is a UNetModel: it takes no reference pictures"):
        server.run(prompt)
