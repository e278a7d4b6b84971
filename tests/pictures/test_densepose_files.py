"""Which files hold a DensePose model, where they are looked for, and which are not opened."""

import json
import pickle
import zipfile

import pytest
import torch
from harness.densepose_models import photo, pose, save_model
from harness.workbench import run
from parts2whole.nodes.pose_from_photo import Parts2WholePoseFromPhoto
from parts2whole.pictures.densepose import densepose_file, list_densepose, pose_of_photo
from parts2whole.pictures.pose_kind import IUV, pose_kind


@pytest.fixture
def path(tmp_path):
    return save_model(tmp_path / "models" / "a.pt", "tuple", [[0, 0, 20, 20]])


class Runs:
    def __reduce__(self):
        return json.dumps, ("this would run",)


@pytest.mark.parametrize("name", ["a/data.pkl", "a/extra/more.pkl", "a/code/__torch__.py.debug_pkl"])
def test_a_pickle_with_more_than_tensors_is_not_opened(path, name):
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, pickle.dumps(Runs(), protocol=2))
    with pytest.raises(ValueError, match=r"holds a pickle with more than tensors \(json dumps\) and was not opened"):
        pose(path, photo(32, 32))
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, pickle.dumps(Runs(), protocol=4))
    with pytest.raises(ValueError, match="was not opened"):
        pose(path, photo(32, 32))


def test_files_that_are_none(path):
    whole = path.read_bytes()
    torch.save({"weight": torch.rand(3)}, path)
    with pytest.raises(ValueError, match="a.pt is not a TorchScript file: it holds no code.*LayerNorm/DensePose-TorchScript"):
        pose(path, photo(32, 32))
    path.write_bytes(whole[:-200])
    with pytest.raises(ValueError, match="not a TorchScript file, or it is cut short"):
        pose(path, photo(32, 32))
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(ValueError, match="only the pointer of a Git LFS file"):
        pose(path, photo(32, 32))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/code/__torch__.py", bytes(80 * 2**20))
    with pytest.raises(ValueError, match="unpacks to much more than its size"):
        pose(path, photo(32, 32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/code/__torch__.py", "class A(Module):\n")
        archive.writestr("a/data.pkl", b"\x80\x02\xff")
    with pytest.raises(ValueError, match="a pickle that cannot be read"):
        pose(path, photo(32, 32))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/code/__torch__.py", "class A(Module):\n")
    with pytest.raises(ValueError, match="a.pt cannot be loaded .*download it again"):
        pose(path, photo(32, 32))


@pytest.fixture
def in_models(path, tmp_path, monkeypatch):
    """models/densepose and custom_nodes of a folder of their own."""
    import folder_paths

    for name, folder in (("densepose", path.parent), ("custom_nodes", tmp_path / "custom_nodes")):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(folder)], set()))
    monkeypatch.delenv("AUX_ANNOTATOR_CKPTS_PATH", raising=False)
    return tmp_path


def test_pose_from_photo(in_models, path):
    image = photo(64, 48)
    iuv, body = run("Parts2WholePoseFromPhoto", image=image, densepose="a.pt", person=0, swap_uv=False)
    expected = pose_of_photo(image, str(path), 0, False)
    assert torch.equal(iuv, expected[0]) and torch.equal(body, expected[1]) and pose_kind(iuv) == IUV
    with pytest.raises(ValueError, match="The photograph holds NaN"):
        run("Parts2WholePoseFromPhoto", image=image * torch.nan, densepose="a.pt", person=0, swap_uv=False)


@pytest.mark.parametrize("owner", ["hr16", "LayerNorm"])
def test_the_preprocessors_copy_is_found_where_it_is(in_models, path, owner, monkeypatch):
    name = "densepose_r50_fpn_dl.torchscript"
    ckpts = in_models / "custom_nodes" / "comfyui_controlnet_aux" / "ckpts"
    theirs = ckpts / owner / "DensePose-TorchScript-with-hint-image" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(path.read_bytes())
    (theirs.parents[1] / "Other").mkdir()
    (theirs.parents[1] / "Other" / "depth.pt").write_bytes(b"")
    (path.parent / "readme.md").write_text("")
    assert list_densepose() == ["a.pt", name] and densepose_file(name) == str(theirs)
    (in_models / "custom_nodes").rename(in_models / "elsewhere")
    assert list_densepose() == ["a.pt"]
    monkeypatch.setenv("AUX_ANNOTATOR_CKPTS_PATH", str(in_models / "elsewhere" / "comfyui_controlnet_aux" / "ckpts"))
    assert list_densepose() == ["a.pt", name]
    (path.parent / name).write_bytes(path.read_bytes())
    assert densepose_file(name) == str(path.parent / name), "what a user put there comes first"


def test_names_outside_the_folder_are_none(in_models, path):
    assert Parts2WholePoseFromPhoto.validate_inputs(densepose="a.pt") is True
    for name in (str(path), f"../{path.parent.name}/a.pt", "none found in models/densepose"):
        message = Parts2WholePoseFromPhoto.validate_inputs(densepose=name)
        assert "No DensePose model" in message and "densepose_r50_fpn_dl.torchscript" in message


def test_without_a_model_the_list_says_so(in_models, path):
    path.unlink()
    assert Parts2WholePoseFromPhoto.define_schema().inputs[1].options == ["none found in models/densepose"]
