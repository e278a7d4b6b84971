"""Loading a folder in the release's layout, whole and broken."""

import json
import pickle
import shutil
import zipfile

import comfy.memory_management
import comfy.model_base
import comfy.model_management
import comfy.utils
import pytest
import safetensors.torch
import torch
from harness.host import GOLDEN
from harness.memory import MIB, most_memory
from harness.workbench import run
from parts2whole.encoders.checkpoint import load as loading
from parts2whole.encoders.checkpoint.files import list_checkpoints, read_weights


@pytest.fixture
def copy(folders, tmp_path):
    """A copy of the tiny checkpoint that a test may break, under models/parts2whole."""
    root = folders / "models" / "parts2whole" / "copy"
    shutil.copytree(GOLDEN / "checkpoint", root)
    yield root
    shutil.rmtree(root)


def unet_file(root):
    return root / "unet" / "diffusion_pytorch_model.safetensors"


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
    weights = safetensors.torch.load_file(unet_file(copy))
    assert [name for name in weights if "to_k_dc" in name]
    weights["something.else"] = torch.zeros(1)
    safetensors.torch.save_file(weights, unet_file(copy))
    loading.load_model(str(copy))


def test_a_full_reference_unet_loads_too(copy, checkpoint):
    shutil.copy(unet_file(copy), copy / "reference_unet" / unet_file(copy).name)
    loading.load_appearance_encoder(str(copy))


@pytest.mark.parametrize("component, load, tensor", [
    ("unet", loading.load_model, "mid_block.resnets.0.conv1.weight"),
    ("reference_unet", loading.load_appearance_encoder, "up_blocks.3.attentions.2.transformer_blocks.0.norm1.weight"),
    ("text_encoder", loading.load_clip, "text_model.final_layer_norm.bias"),
    ("image_encoder", loading.load_clip_vision, "visual_projection.weight"),
    ("pose_guider", loading.load_pose_guider, "conv_out.bias"),
])
def test_missing_tensors_are_named(copy, component, load, tensor):
    file = next((copy / component).glob("*.safetensors"))
    weights = safetensors.torch.load_file(file)
    del weights[tensor]
    safetensors.torch.save_file(weights, file)
    with pytest.raises(ValueError, match=rf"{component} lack {tensor}.*[Dd]ownload"):
        load(str(copy))


def test_missing_tensors_of_the_vae_and_the_image_attention_are_named(copy):
    file = next((copy / "vae").glob("*.safetensors"))
    weights = safetensors.torch.load_file(file)
    del weights["decoder.conv_in.weight"]
    safetensors.torch.save_file(weights, file)
    with pytest.raises(ValueError, match="vae lack decoder.conv_in.weight"):
        loading.load_vae(str(copy))

    weights = safetensors.torch.load_file(copy / "decoupled_attn.pth")
    name = "mid_block.attentions.0.transformer_blocks.0.attn2.processor.to_v_dc.weight"
    del weights[name]
    safetensors.torch.save_file(weights, copy / "decoupled_attn.pth")
    with pytest.raises(ValueError, match=f"decoupled_attn.pth lack {name}"):
        loading.load_image_attention(str(copy))


FILES = sorted(
    str(path.relative_to(GOLDEN / "checkpoint")) for path in (GOLDEN / "checkpoint").rglob("*")
    # The host's own tokenizer serves, and model_index.json says nothing that the folders do not.
    if path.is_file() and path.parent.name != "tokenizer" and path.name != "model_index.json"
)


@pytest.mark.parametrize("file", FILES)
def test_a_missing_file_is_named_with_what_mends_it(copy, file):
    (copy / file).unlink()
    parent, _, name = file.rpartition("/")
    with pytest.raises(FileNotFoundError, match=f"{copy} lacks {parent}.*{name}.*ownload"):
        run("Parts2WholeLoader", checkpoint="copy")


def test_all_missing_files_are_named_at_once(copy):
    shutil.rmtree(copy / "pose_guider")
    (copy / "decoupled_attn.pth").unlink()
    with pytest.raises(FileNotFoundError, match=r"pose_guider/diff.*; decoupled_attn.safetensors or .*; pose_guider/config.json"):
        run("Parts2WholeLoader", checkpoint="copy")


def test_a_git_lfs_pointer_is_told_apart(copy):
    unet_file(copy).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="only the pointer of a Git LFS file: run `git lfs pull`"):
        run("Parts2WholeLoader", checkpoint="copy")


def test_names_that_lead_elsewhere_are_refused():
    for name in ("../parts2whole/tiny", str(GOLDEN / "checkpoint"), ""):
        with pytest.raises(FileNotFoundError, match="No Parts2Whole checkpoint"):
            run("Parts2WholeLoader", checkpoint=name)


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("kept", [0.0, 0.7])
def test_a_truncated_file_is_named_with_what_mends_it(copy, file, kept):
    data = (copy / file).read_bytes()
    (copy / file).write_bytes(data[:int(len(data) * kept)])
    with pytest.raises(ValueError, match=f"{copy / file}.*ownload"):
        run("Parts2WholeLoader", checkpoint="copy")


class _Malicious:
    def __reduce__(self):
        return exec, ("import builtins; builtins.unpickled = True",)


@pytest.mark.parametrize("component, file", [("", "decoupled_attn.pth"), ("unet", "diffusion_pytorch_model.bin")])
@pytest.mark.parametrize("save", [
    lambda value, path: path.write_bytes(pickle.dumps(value)), lambda value, path: torch.save(value, path)
], ids=["pickle", "torch"])
def test_pickles_are_never_opened(copy, component, file, save):
    for path in (copy / component).glob("*.safetensors"):
        path.unlink()
    save({"conv_in.weight": _Malicious()}, copy / component / file)
    with pytest.raises(ValueError, match="was not opened|cannot be read"):
        run("Parts2WholeLoader", checkpoint="copy")
    import builtins

    assert not hasattr(builtins, "unpickled")


def test_bin_files_of_tensors_are_read(copy):
    weights = safetensors.torch.load_file(unet_file(copy))
    unet_file(copy).unlink()
    torch.save(weights, copy / "unet" / "diffusion_pytorch_model.bin")
    read = read_weights(str(copy), "unet")
    assert read.keys() == weights.keys()
    loading.load_model(str(copy))


@pytest.mark.parametrize("beta_schedule, first_sigma", [("scaled_linear", 0.0292), ("linear", 0.0292)])
def test_the_noise_schedule_comes_from_the_config(copy, beta_schedule, first_sigma):
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "beta_schedule": beta_schedule}))
    model = loading.load_model(str(copy))
    sigmas = model.get_model_object("model_sampling").sigmas
    start, end = config["beta_start"], config["beta_end"]
    betas = torch.linspace(start, end, 1000, dtype=torch.float64)
    if beta_schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    assert torch.allclose(sigmas.double(), ((1 - alphas) / alphas).sqrt(), rtol=1e-5)
    assert abs(float(sigmas[0]) - first_sigma) < 1e-4


COMPONENTS = {
    "unet": loading.load_model, "reference_unet": loading.load_appearance_encoder, "vae": loading.load_vae,
    "text_encoder": loading.load_clip, "image_encoder": loading.load_clip_vision, "pose_guider": loading.load_pose_guider,
    "scheduler": loading.load_model, "feature_extractor": loading.load_clip_vision,
}


@pytest.mark.parametrize("component, name, value", [
    ("unet", "layers_per_block", 10**9), ("unet", "layers_per_block", 3), ("unet", "layers_per_block", "2"),
    ("unet", "block_out_channels", [32, 32, 64, 32 * 10**6]), ("unet", "block_out_channels", [32, 32, 64, 128]),
    ("unet", "block_out_channels", [32] * 1000), ("unet", "block_out_channels", None),
    ("unet", "down_block_types", ["DownBlock2D"] * 10**4), ("unet", "up_block_types", ["CrossAttnUpBlock2D"] * 3),
    ("unet", "down_block_types", ["Stranger"] * 4), ("unet", "in_channels", 10**6), ("unet", "out_channels", 8000),
    ("unet", "cross_attention_dim", 8000), ("unet", "attention_head_dim", 10**9), ("unet", "attention_head_dim", 0),
    ("unet", "attention_head_dim", [4, 4, 4, 4]), ("unet", "norm_num_groups", 16), ("vae", "norm_num_groups", 8),
    ("reference_unet", "layers_per_block", 3), ("reference_unet", "block_out_channels", [64, 64, 128, 128]),
    ("vae", "layers_per_block", 10**9), ("vae", "block_out_channels", [32, 32, 32, 10**7]), ("vae", "latent_channels", 10**6),
    ("vae", "in_channels", 10**6), ("vae", "out_channels", 10**6), ("vae", "scaling_factor", 0), ("vae", "scaling_factor", "x"),
    ("text_encoder", "hidden_size", 10**6), ("text_encoder", "intermediate_size", 10**8),
    ("text_encoder", "num_hidden_layers", 10**9), ("text_encoder", "num_attention_heads", 5),
    ("text_encoder", "num_attention_heads", 0), ("text_encoder", "hidden_act", "stranger"),
    ("image_encoder", "hidden_size", 10**6), ("image_encoder", "num_hidden_layers", 10**9),
    ("image_encoder", "image_size", 10**6), ("image_encoder", "image_size", 448), ("image_encoder", "patch_size", 0),
    ("image_encoder", "projection_dim", 10**6), ("image_encoder", "model_type", "dinov2"), ("image_encoder", "hidden_act", None),
    ("pose_guider", "block_out_channels", [16, 32, 96, 10**6]), ("pose_guider", "block_out_channels", [16] * 10**4),
    ("pose_guider", "conditioning_embedding_channels", 10**6), ("pose_guider", "conditioning_channels", 10**6),
    ("scheduler", "num_train_timesteps", 10**9), ("scheduler", "num_train_timesteps", 0),
    ("scheduler", "beta_start", -1), ("scheduler", "beta_end", 5), ("scheduler", "beta_end", None),
    ("scheduler", "beta_schedule", ["linear"]),
    ("feature_extractor", "image_std", [0, 0, 0]), ("feature_extractor", "image_mean", "x"),
], ids=lambda value: str(value)[:30])
def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_built(copy, component, name, value):
    path = next((copy / component).glob("*config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    def load():
        with pytest.raises(ValueError, match=str(copy / component)):
            COMPONENTS[component](str(copy))

    assert most_memory(load) < 100 * MIB


def expanded(path, weights):
    torch.save({**weights, "conv_in.weight": torch.zeros(1).expand(10**6, 10**6)}, path)


def compressed(path, weights):
    torch.save({**weights, "more": torch.zeros(10**7)}, path)
    with zipfile.ZipFile(path) as stored:
        entries = {entry.filename: stored.read(entry) for entry in stored.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as deflated:
        for name, data in entries.items():
            deflated.writestr(name, data)


@pytest.mark.parametrize("save, message", [
    (expanded, "tensors that are larger than its .* bytes"), (compressed, "unpacks to more than its .* bytes"),
    (lambda path, weights: torch.save({**weights, "meta": torch.empty(10**6, 10**6, device="meta")}, path), "larger than its"),
    (lambda path, weights: torch.save({**weights, "sparse": torch.eye(3).to_sparse()}, path), "something else than plain tensors"),
    (lambda path, weights: torch.save(list(weights.values()), path), "something else than plain tensors"),
    (lambda path, weights: torch.save(torch.zeros(3), path), "cannot be read"),
    (lambda path, weights: torch.save(7, path), "something else than plain tensors"),
    (lambda path, weights: torch.save({**weights, "step": 7}, path), "something else than plain tensors"),
    (lambda path, weights: torch.save({**weights, 7: torch.zeros(1)}, path), "something else than plain tensors"),
    (lambda path, weights: torch.save([[]], path), "something else than plain tensors"),
])
def test_files_of_something_else_than_their_own_tensors_are_refused(copy, save, message):
    weights = safetensors.torch.load_file(unet_file(copy))
    unet_file(copy).unlink()
    save(copy / "unet" / "diffusion_pytorch_model.bin", weights)

    def load():
        with pytest.raises(ValueError, match=f"diffusion_pytorch_model.bin .*{message}.*ownload"):
            loading.load_model(str(copy))

    assert most_memory(load) < 100 * MIB


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "sigmoid", 7])
def test_a_noise_schedule_that_the_host_lacks_is_refused_with_those_that_it_has(copy, schedule):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": schedule}))
    with pytest.raises(ValueError, match="is not supported. Expected beta_schedule one of linear, scaled_linear and"):
        loading.load_model(str(copy))


def test_what_the_model_predicts_comes_from_the_config(copy):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    assert loading.load_model(str(copy)).model.model_type == comfy.model_base.ModelType.V_PREDICTION


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
