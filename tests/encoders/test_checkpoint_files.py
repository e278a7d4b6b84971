"""Files of a checkpoint that are missing, cut short, or of something else than plain tensors."""

import pickle
import shutil
import zipfile

import comfy.memory_management
import comfy.utils
import pytest
import safetensors.torch
import torch
from harness.host import GOLDEN
from harness.memory import MIB, most_memory
from harness.workbench import run
from parts2whole.encoders.checkpoint import load as loading
from parts2whole.encoders.checkpoint.files import read_weights

UNET_FILE = "unet/diffusion_pytorch_model.safetensors"


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


@pytest.mark.parametrize("shape", [(32, 48), (64, 32), (32,)], ids=str)
def test_projections_that_do_not_belong_to_each_other_are_named(copy, shape):
    weights = safetensors.torch.load_file(copy / "decoupled_attn.pth")
    block = "down_blocks.0.attentions.1.transformer_blocks.0"
    weights[f"{block}.attn2.processor.to_v_dc.weight"] = torch.zeros(shape)
    safetensors.torch.save_file(weights, copy / "decoupled_attn.pth")
    with pytest.raises(ValueError, match=rf"{block}.*{list(shape)}.*ownload".replace("[", r"\[").replace("]", r"\]")):
        loading.load_image_attention(str(copy))


def test_the_width_of_image_tokens_is_that_of_their_projections(copy):
    weights = safetensors.torch.load_file(copy / "decoupled_attn.pth")
    safetensors.torch.save_file({name: torch.zeros(len(each), 48) for name, each in weights.items()}, copy / "decoupled_attn.pth")
    attention = loading.load_image_attention(str(copy)).model
    assert (attention.token_channels, attention.context_channels) == (48, 32)


SHAPES = [
    ("unet", loading.load_model, "mid_block.attentions.0.transformer_blocks.0.attn2.to_v.weight"),
    ("unet", loading.load_model, "up_blocks.1.resnets.0.norm1.bias"),
    ("reference_unet", loading.load_appearance_encoder, "down_blocks.0.attentions.0.proj_in.weight"),
    ("text_encoder", loading.load_clip, "text_model.embeddings.position_embedding.weight"),
    ("text_encoder", loading.load_clip, "text_model.encoder.layers.0.self_attn.k_proj.bias"),
    ("vae", loading.load_vae, "decoder.mid_block.attentions.0.to_q.weight"),
    ("vae", loading.load_vae, "quant_conv.bias"),
    ("image_encoder", loading.load_clip_vision, "vision_model.embeddings.class_embedding"),
    ("image_encoder", loading.load_clip_vision, "vision_model.encoder.layers.0.mlp.fc2.weight"),
    ("pose_guider", loading.load_pose_guider, "blocks.2.bias"),
]


@pytest.mark.parametrize("dynamic", [False, True], ids=["", "dynamic"])
@pytest.mark.parametrize("component, load, tensor", SHAPES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_tensor_of_another_shape_is_named_with_the_shape_that_is_expected(copy, monkeypatch, component, load, tensor, dynamic):
    """Whichever of them it is. dynamic: with the host's dynamic memory management, see its test"""
    if dynamic:
        monkeypatch.setattr(comfy.memory_management, "aimdo_enabled", True)
        monkeypatch.setattr(comfy.utils, "load_safetensors", lambda path: (safetensors.torch.load_file(path), {}))
    file = next(path for path in (copy / component).iterdir() if path.suffix in (".safetensors", ".pth"))
    weights = safetensors.torch.load_file(file)
    weights[tensor] = torch.cat([weights[tensor]] * 2)
    safetensors.torch.save_file(weights, file)
    with pytest.raises(ValueError, match=r"have other shapes than the configuration says: \S+ is \[[\d, ]+\], expected \["):
        load(str(copy))


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
    (copy / UNET_FILE).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="only the pointer of a Git LFS file: run `git lfs pull`"):
        run("Parts2WholeLoader", checkpoint="copy")


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
    weights = safetensors.torch.load_file(copy / UNET_FILE)
    (copy / UNET_FILE).unlink()
    torch.save(weights, copy / "unet" / "diffusion_pytorch_model.bin")
    read = read_weights(str(copy), "unet")
    assert read.keys() == weights.keys()
    loading.load_model(str(copy))


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
    weights = safetensors.torch.load_file(copy / UNET_FILE)
    (copy / UNET_FILE).unlink()
    save(copy / "unet" / "diffusion_pytorch_model.bin", weights)

    def load():
        with pytest.raises(ValueError, match=f"diffusion_pytorch_model.bin .*{message}.*ownload"):
            loading.load_model(str(copy))

    assert most_memory(load) < 100 * MIB
