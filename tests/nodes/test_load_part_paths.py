"""Which files are read as pictures of the input folder."""

import os

import folder_paths
import pytest
from harness.pictures import save
from harness.workbench import run
from parts2whole.pictures.part import escaped
from PIL import Image


def load(name):
    return run("Parts2WholeLoadPart", image=name, label="face")


@pytest.fixture
def outside(folders):
    """A picture beside the input folder, and links to it, to its folder and to nothing."""
    Image.new("RGB", (8, 8)).save(folders / "secret.png")
    inside = folders / "input"
    (inside / "folder").mkdir()
    links = {
        "link.png": folders / "secret.png", "nowhere_link.png": folders / "nothing.png", "up": folders,
        "loop.png": inside / "loop.png",
    }
    for name, target in links.items():
        (inside / name).symlink_to(target)
    os.mkfifo(inside / "pipe.png")
    yield
    for name in (*links, "pipe.png"):
        (inside / name).unlink()
    (inside / "folder").rmdir()


@pytest.mark.parametrize("name", [
    "", ".", "..", "/", "folder", "folder/", "pipe.png", "nowhere.png", "../secret.png", "../nothing.png",
    "folder/../../secret.png", "{base}/secret.png", "{base}/nothing.png", "link.png", "nowhere_link.png", "loop.png",
    "up/secret.png", "up/nothing.png", "../input/../secret.png", "../secret.png [input]", "../secret.png [output]",
    "../input/link.png [temp]", " [output]", "a\0b.png", "x" * 5000, "..\\secret.png", 5, ["link.png"],
], ids=str)
def test_only_files_inside_the_input_folder_are_read(outside, folders, name):
    """Whether there is one outside cannot be told from the words, nor where the folder is."""
    name = name.replace("{base}", str(folders)) if isinstance(name, str) else name
    node, expected = _node(), f"Invalid image file: {escaped(str(name))}. Upload it, or put it into ComfyUI's input folder."
    assert node.validate_inputs(image=name) == expected
    for call in (node.fingerprint_inputs, lambda image: node.execute(image=image, label="face", mask_source="alpha")):
        with pytest.raises(ValueError) as error:
            call(image=name)
        assert str(error.value) == expected


def test_no_name_is_refused_as_a_wrong_one_is():
    with pytest.raises(ValueError, match="Invalid image file: None"):
        _node().execute(image=None, label="face")


def test_only_files_inside_the_input_folder_are_listed(outside):
    (image, *_) = _node().define_schema().inputs
    assert not {"link.png", "nowhere_link.png", "loop.png", "pipe.png"} & set(image.options)


def test_the_hosts_other_folders_and_subfolders_are_read(outside, folders):
    for folder, name in (("output", "made.png [output]"), ("temp", "made.png [temp]"), ("input/folder", "folder/made.png")):
        path = folders / folder / "made.png"
        Image.new("RGB", (8, 8), "red").save(path)
        assert _node().validate_inputs(image=name) is True and load(name).image[0, 0, 0].tolist() == [1, 0, 0]
        path.unlink()


def test_an_input_folder_that_is_a_link_is_read(folders, tmp_path):
    save(Image.new("RGB", (8, 8)), "plain.png")
    before = folder_paths.get_input_directory()
    (tmp_path / "linked").symlink_to(before)
    folder_paths.set_input_directory(str(tmp_path / "linked"))
    try:
        assert _node().validate_inputs(image="plain.png") is True
    finally:
        folder_paths.set_input_directory(before)


def _node():
    import nodes as host_nodes

    return host_nodes.NODE_CLASS_MAPPINGS["Parts2WholeLoadPart"]
