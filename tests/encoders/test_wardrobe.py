"""Encoded appearances in files."""

import json

import comfy.utils
import numpy as np
import pytest
import torch
from comfy.model_patcher import ModelPatcher
from harness.host import our_nodes
from harness.workbench import apply_parts, run, with_lora
from parts2whole.attention.bank import Appearance
from parts2whole.encoders.fingerprint import fingerprint
from PIL import Image
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
    assert sorted(path.name for path in wardrobe.iterdir()) == ["outfit_00001_.png", "outfit_00001_.safetensors"]
    loaded = load(appearance_encoder=checkpoint.appearance_encoder)
    assert [reference.label for reference in loaded.references] == ["face", "upper body clothes", "shoes"]
    assert [reference.origin for reference in loaded.references] == [reference.origin for reference in appearance.references]
    assert torch.equal(draw(apply_parts(checkpoint.model, loaded)), draw(apply_parts(checkpoint.model, appearance)))
    save(appearance)
    assert sorted(path.name for path in wardrobe.iterdir())[-1] == "outfit_00002_.safetensors", "nothing is written over"


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


def rewritten(wardrobe, change):
    """A saved appearance, with its tensors and its description changed."""
    from safetensors import safe_open
    from safetensors.torch import load_file

    path = wardrobe / "outfit_00001_.safetensors"
    with safe_open(path, "pt") as file:
        described = json.loads(file.metadata()["parts2whole_appearance"])
    tensors = load_file(path)
    described = change(described, tensors) or described
    save_file(tensors, wardrobe / "changed.safetensors", metadata={"parts2whole_appearance": json.dumps(described)})


def reference(**values):
    return lambda described, tensors: described["references"][0].update(values)


def bank(tensor):
    return lambda described, tensors: tensors.update({"0.middle.0.0": tensor})


def removed(**counts):
    return lambda described, tensors: described["references"][0]["removed"].update(counts)


@pytest.mark.parametrize("change, message", [
    (lambda described, tensors: [described], "its description is a list"),
    (
        lambda described, tensors: tensors.update({"0.thumbnail": torch.zeros(300, 4, 3, dtype=torch.uint8)}) or described,
        r"its picture of reference 0 has shape \[300, 4, 3\]",
    ),
    (lambda described, tensors: {"version": 1}, "its list of references is a NoneType"),
    (lambda described, tensors: {"version": [1]}, "it has format"),
    (lambda described, tensors: {**described, "references": []}, "it has 0 references"),
    (lambda described, tensors: {**described, "references": described["references"][:1] * 5000}, "it has 5000 references"),
    (lambda described, tensors: {**described, "references": ["face"]}, "its reference 0 is a str"),
    (reference(label=7), "its label of reference 0 is a int"), (reference(label="x" * 10**6), "has 1000000 characters"),
    (reference(label=" "), "its label"), (reference(context_channels="32"), "its context_channels"),
    (reference(context_channels=True), "its context_channels"), (reference(encoder=None), "its encoder of reference 0"),
    (reference(vae=[]), "its vae"), (reference(text=3), "its text"), (reference(frame=[128, 192]), "its frame"),
    (reference(frame="128x192"), "its frame"), (reference(frame=[128, 10**12, "pad"]), "its height"),
    (reference(frame=[1, 1, "pad"]), "tokens, in a frame of 1x1 pixels"),
    (reference(removed={}), "has no features"), (reference(removed=[]), "its counts"),
    (removed(**{"middle.0.0": -1}), "its count of removed tokens"), (removed(**{"middle.0.0": 1.5}), "its count of removed tokens"),
    (removed(**{"middle.0.0": 10**7}), "tokens, in a frame of"),
    (removed(**{"middle.0.1": 0}), "'0.middle.0.1' is missing"), (removed(**{"../../x": 0}), "is missing"),
    (lambda described, tensors: (tensors.update({"0.aside.0.0": torch.ones(1, 4)}), removed(**{"aside.0.0": 0})(described, {}))[1],
     "name no block: 'aside.0.0'"),
    (bank(torch.ones(1, 2, 3)), "float32 of shape .1, 2, 3."), (bank(torch.ones(6, 4, dtype=torch.int64)), "int64 of shape"),
    (bank(torch.full((6, 4), torch.nan)), "NaN or infinite"), (bank(torch.full((6, 4), torch.inf).half()), "NaN or infinite"),
    (bank(torch.ones(6, 0)), "expected floats of shape"),
])
def test_a_strangers_file_is_refused_with_words(wardrobe, appearance, change, message):
    save(appearance)
    rewritten(wardrobe, change)
    with pytest.raises(ValueError, match=f"^wardrobe/changed.safetensors cannot be read .*{message}"):
        load("changed.safetensors")


def test_what_is_shown_of_a_saved_file_is_its_path_in_the_output_folder(wardrobe, appearance):
    from parts2whole.nodes.wardrobe import Parts2WholeSaveAppearance

    shown = Parts2WholeSaveAppearance.execute(appearance=appearance, filename_prefix="wardrobe/outfit").ui["text"]
    assert shown == ("wardrobe/outfit_00001_.safetensors",)


def test_a_planted_link_is_not_written_through(wardrobe, appearance, tmp_path):
    wardrobe.mkdir()
    (wardrobe / "outfit_00001_.safetensors.part").symlink_to(tmp_path / "victim")
    save(appearance)
    assert not (tmp_path / "victim").exists()


def test_the_same_reference_twice(wardrobe, appearance):
    twice = appearance._replace(references=appearance.references[:1] * 2)
    save(twice)
    assert len(load().references) == 2


def test_without_a_wardrobe_there_is_nothing_to_load(wardrobe):
    from parts2whole.encoders.wardrobe import list_appearances

    assert list_appearances() == ["none found in output/wardrobe"] and not wardrobe.exists()


def test_a_name_that_no_file_can_have_is_refused(appearance):
    with pytest.raises(ValueError, match="has 519 bytes, and at most 200 fit. Shorten `filename_prefix`"):
        run("Parts2WholeSaveAppearance", appearance=appearance, filename_prefix="wardrobe/" + "y" * 500)
    for prefix in ("y" * 500 + "/outfit", "/".join(["y" * 200] * 30), "wardrobe/a\0b"):
        with pytest.raises(ValueError, match=r"`filename_prefix` '.*' cannot name a file \(.+\): take another"):
            run("Parts2WholeSaveAppearance", appearance=appearance, filename_prefix=prefix)


def test_the_wardrobe_shows_what_is_in_it(wardrobe, appearance, folders):
    save(appearance)
    loaded = our_nodes()["Parts2WholeLoadAppearance"].execute(file="outfit_00001_.safetensors")
    (picture,) = loaded.ui["images"]
    shown = np.asarray(Image.open(folders / "temp" / picture["subfolder"] / picture["filename"]).convert("RGB"))
    assert np.array_equal(shown, np.asarray(Image.open(wardrobe / "outfit_00001_.png"))) and shown.std() > 10
    for before, after in zip(appearance.references, loaded[0].references):
        assert torch.equal(before.thumbnail, after.thumbnail) and max(after.thumbnail.shape) <= 128


def test_a_file_without_pictures_still_loads(wardrobe, appearance):
    save(Appearance(tuple(reference._replace(thumbnail=None) for reference in appearance.references)))
    loaded = our_nodes()["Parts2WholeLoadAppearance"].execute(file="outfit_00001_.safetensors")
    assert [reference.thumbnail for reference in loaded[0].references] == [None] * 3 and loaded.ui["images"]
