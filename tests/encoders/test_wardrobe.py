"""Encoded appearances in files."""

import json

import comfy.utils
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from harness.workbench import apply_parts, run, with_lora
from parts2whole.encoders.fingerprint import fingerprint
from safetensors.torch import save_file


@pytest.fixture
def wardrobe(tmp_path, monkeypatch):
    """The host's output folder, and the wardrobe in it."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    return tmp_path / "wardrobe"


def save(appearance):
    return run("Parts2WholeSaveAppearance", appearance=appearance, filename_prefix="wardrobe/outfit")


def load(name="outfit_00001_.safetensors", **inputs):
    return run("Parts2WholeLoadAppearance", file=name, **inputs)


def test_a_loaded_appearance_gives_the_same_picture_bit_for_bit(wardrobe, checkpoint, appearance, draw):
    assert save(appearance) is appearance
    assert [path.name for path in wardrobe.iterdir()] == ["outfit_00001_.safetensors"]
    loaded = load(appearance_encoder=checkpoint.appearance_encoder)
    assert [reference.label for reference in loaded.references] == ["face", "upper body clothes", "shoes"]
    assert [reference.origin for reference in loaded.references] == [reference.origin for reference in appearance.references]
    assert torch.equal(draw(apply_parts(checkpoint.model, loaded)), draw(apply_parts(checkpoint.model, appearance)))
    save(appearance)
    assert sorted(path.name for path in wardrobe.iterdir())[1] == "outfit_00002_.safetensors", "nothing is written over"


def test_one_of_another_encoder_is_refused(wardrobe, checkpoint, appearance):
    save(appearance)
    other = run("Parts2WholeModelAsEncoder", model=checkpoint.model)
    with pytest.raises(ValueError, match="'face' .* was encoded by another appearance encoder"):
        load(appearance_encoder=other)
    assert len(load().references) == 3, "not asked, not refused"


def test_fingerprints_tell_models_noise_levels_and_loras_apart_and_nothing_else(checkpoint, draw):
    again = run("Parts2WholeLoader", checkpoint="tiny")
    assert fingerprint(again[0]) == fingerprint(checkpoint.model) == fingerprint(checkpoint.model.clone())
    assert again[4].fingerprint == checkpoint.appearance_encoder.fingerprint
    lora, weaker = with_lora(checkpoint.model), with_lora(checkpoint.model, 0.5)
    draw(lora)  # its weights are in the model now
    draw(run("ModelSamplingDiscrete", model=checkpoint.model, sampling="v_prediction", zsnr=True))  # and this one's schedule
    assert fingerprint(checkpoint.model) == fingerprint(again[0])
    encoders = [
        checkpoint.appearance_encoder, run("Parts2WholeModelAsEncoder", model=checkpoint.model, noise_level=100),
        *(run("Parts2WholeModelAsEncoder", model=model) for model in (checkpoint.model, lora, weaker)),
    ]
    assert len({encoder.fingerprint for encoder in encoders}) == 5


def test_a_fingerprint_looks_at_all_of_a_weight():
    layer = torch.nn.Linear(32, 32)
    patcher = ModelPatcher(layer, load_device=torch.device("cpu"), offload_device=torch.device("cpu"))
    seen = {fingerprint(patcher)}
    for quarter in layer.weight.view(4, -1):
        quarter += 1
        seen.add(fingerprint(patcher))
    assert len(seen) == 5


def test_other_files_are_refused_with_words(wardrobe, appearance):
    wardrobe.mkdir()
    save_file({"weight": torch.zeros(1)}, wardrobe / "checkpoint.safetensors")
    with pytest.raises(ValueError, match="cannot be read .it is a safetensors file, but no appearance"):
        load("checkpoint.safetensors")
    save(appearance)
    whole = (wardrobe / "outfit_00001_.safetensors").read_bytes()
    (wardrobe / "cut.safetensors").write_bytes(whole[:len(whole) // 2])
    with pytest.raises(ValueError, match="cannot be read.*Save the appearance again"):
        load("cut.safetensors")


def test_a_missing_file_is_named_with_its_folder(wardrobe):
    from parts2whole.nodes.wardrobe import Parts2WholeLoadAppearance

    message = Parts2WholeLoadAppearance.validate_inputs(file="gone.safetensors")
    assert "gone.safetensors" in message and str(wardrobe) in message


def test_names_outside_the_wardrobe_are_none(wardrobe, appearance):
    from parts2whole.nodes.wardrobe import Parts2WholeLoadAppearance

    save(appearance)
    (wardrobe / "outfit_00001_.safetensors").rename(wardrobe.parent / "outside.safetensors")
    for name in ("../outside.safetensors", str(wardrobe.parent / "outside.safetensors")):
        assert "No appearance" in Parts2WholeLoadAppearance.validate_inputs(file=name)


@pytest.mark.parametrize("version", [0, 2])
def test_another_format_is_refused(wardrobe, appearance, version):
    save(appearance)
    tensors, metadata = comfy.utils.load_torch_file(str(wardrobe / "outfit_00001_.safetensors"), return_metadata=True)
    ((key, described),) = metadata.items()
    save_file(tensors, wardrobe / "other.safetensors", {key: json.dumps({**json.loads(described), "version": version})})
    with pytest.raises(ValueError, match=f"it has format {version}, and this pack reads 1"):
        load("other.safetensors")


def test_a_file_that_lacks_a_tensor_is_refused(wardrobe, appearance):
    from safetensors import safe_open
    from safetensors.torch import load_file

    save(appearance)
    path = wardrobe / "outfit_00001_.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    tensors = load_file(path)
    tensors.pop("0.middle.0.0")
    save_file(tensors, wardrobe / "less.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="cannot be read .'0.middle.0.0'"):
        load("less.safetensors")


def test_the_same_reference_twice(wardrobe, appearance):
    twice = appearance._replace(references=appearance.references[:1] * 2)
    save(twice)
    assert len(load().references) == 2


def test_without_a_wardrobe_there_is_nothing_to_load(wardrobe):
    from parts2whole.encoders.wardrobe import list_appearances

    assert list_appearances() == [] and not wardrobe.exists()
