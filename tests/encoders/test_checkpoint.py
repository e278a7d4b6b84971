"""Loading a folder in the release's layout."""

import shutil

import comfy.memory_management
import comfy.model_management
import comfy.utils
import pytest
import safetensors.torch
import torch
from harness.host import GOLDEN
from harness.workbench import run
from parts2whole.encoders.checkpoint import load as loading
from parts2whole.encoders.checkpoint.files import list_checkpoints

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


def test_widths_heads_and_context_come_from_the_config(checkpoint):
    unet = checkpoint.model.model.diffusion_model
    assert (unet.model_channels, unet.out_channels) == (32, 4)
    block = unet.middle_block[1].transformer_blocks[0]
    assert (block.n_heads, block.d_head) == (4, 16)
    assert block.attn2.to_k.weight.shape == (64, 32)


def test_every_component_is_under_the_hosts_model_management(checkpoint):
    patchers = [
        checkpoint.model, checkpoint.clip.patcher, checkpoint.vae.patcher, checkpoint.clip_vision.patcher,
        checkpoint.appearance_encoder.patcher, checkpoint.pose_guider, checkpoint.image_attention,
    ]
    comfy.model_management.load_models_gpu(patchers)
    assert all(patcher.model_size() > 0 for patcher in patchers)
    loaded = comfy.model_management.loaded_models()
    assert all(any(patcher.model is model.model for model in loaded) for patcher in patchers)


def test_the_reference_unet_holds_nothing_after_its_last_norm1(checkpoint):
    names = checkpoint.appearance_encoder.patcher.model.diffusion_model.state_dict()
    assert "output_blocks.11.1.transformer_blocks.0.norm1.weight" in names
    assert not [name for name in names if name.startswith(("out.", "output_blocks.11.1.transformer_blocks.0.attn"))]


def test_extra_tensors_are_tolerated(copy):
    weights = safetensors.torch.load_file(copy / UNET_FILE)
    assert [name for name in weights if "to_k_dc" in name]
    weights["something.else"] = torch.zeros(1)
    safetensors.torch.save_file(weights, copy / UNET_FILE)
    loading.load_model(str(copy))


def test_a_full_reference_unet_loads_too(copy, checkpoint):
    shutil.copy(copy / UNET_FILE, copy / UNET_FILE.replace("unet/", "reference_unet/"))
    loading.load_appearance_encoder(str(copy))


def test_names_that_lead_elsewhere_are_refused():
    for name in ("../parts2whole/tiny", str(GOLDEN / "checkpoint"), ""):
        with pytest.raises(FileNotFoundError, match="No Parts2Whole checkpoint"):
            run("Parts2WholeLoader", checkpoint=name)


def test_an_incomplete_folder_does_not_hide_a_complete_one_of_the_same_name(folders):
    (folders / "models" / "parts2whole" / "twice" / "unet").mkdir(parents=True)
    complete = folders / "models" / "diffusers" / "twice"
    complete.symlink_to(GOLDEN / "checkpoint")
    assert run("Parts2WholeLoader", checkpoint="twice")
    complete.unlink()
    shutil.rmtree(folders / "models" / "parts2whole" / "twice")


def test_folders_with_a_reference_unet_are_listed(folders, copy):
    nested = folders / "models" / "diffusers" / "huanngzh" / "Parts2Whole"
    nested.parent.mkdir()
    nested.symlink_to(GOLDEN / "checkpoint")
    (folders / "models" / "diffusers" / "other" / "unet").mkdir(parents=True)
    assert list_checkpoints() == ["copy", "huanngzh/Parts2Whole", "paper_doll", "tiny"]
    shutil.rmtree(folders / "models" / "diffusers" / "huanngzh")


@pytest.mark.parametrize("dtype, tolerance", [("bf16_unet", 0.1), ("fp16_unet", 0.02), ("fp8_e4m3fn_unet", 0.5)])
def test_other_weight_types(copy, checkpoint, monkeypatch, dtype, tolerance):
    """The types of the host's command line; numbers as good as the type is."""
    import comfy.cli_args
    from harness.workbench import apply_parts, encode, golden_parts, rel, sample

    def draw(model, encoder):
        parts = golden_parts(checkpoint.clip, 2)
        appearance = encode(checkpoint._replace(appearance_encoder=encoder), parts)
        return sample(apply_parts(model, appearance), checkpoint.clip)

    monkeypatch.setattr(comfy.cli_args.args, dtype, True)
    model, encoder = loading.load_model(str(copy)), loading.load_appearance_encoder(str(copy))
    assert model.model.diffusion_model.dtype != torch.float32
    result, exact = draw(model, encoder), draw(checkpoint.model, checkpoint.appearance_encoder)
    assert rel(result, exact) < tolerance
    assert rel(result, exact) < rel(result, sample(checkpoint.model, checkpoint.clip)), "nearer to that with parts than without"


def test_the_hosts_dynamic_memory_management(copy, checkpoint, monkeypatch):
    """Where it is on, Linear layers have no tensors before they are loaded: as on most GPUs, whose reader this machine lacks."""
    monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
    monkeypatch.setattr(comfy.utils, "load_safetensors", lambda path: (safetensors.torch.load_file(path), {}))
    loaded = loading.load_checkpoint(str(copy))
    for ours, theirs in (
        (loaded.model.model.diffusion_model, checkpoint.model.model.diffusion_model),
        (loaded.appearance_encoder.patcher.model.diffusion_model, checkpoint.appearance_encoder.patcher.model.diffusion_model),
        (loaded.clip.cond_stage_model, checkpoint.clip.cond_stage_model),
        (loaded.vae.first_stage_model, checkpoint.vae.first_stage_model),
        (loaded.clip_vision.model, checkpoint.clip_vision.model), (loaded.pose_guider.model, checkpoint.pose_guider.model),
        (loaded.image_attention.model, checkpoint.image_attention.model),
    ):
        expected = theirs.state_dict()
        assert ours.state_dict().keys() == expected.keys()
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor.float(), expected[name].float()), name

    for component, load, tensor in (
        ("unet", loading.load_model, "time_embedding.linear_1.weight"),
        ("text_encoder", loading.load_clip, "text_model.encoder.layers.0.self_attn.q_proj.weight"),
        ("image_encoder", loading.load_clip_vision, "visual_projection.weight"),
    ):
        file = next((copy / component).glob("*.safetensors"))
        weights = safetensors.torch.load_file(file)
        del weights[tensor]
        safetensors.torch.save_file(weights, file)
        with pytest.raises(ValueError, match=f"{component} lack {tensor}"):
            load(str(copy))
