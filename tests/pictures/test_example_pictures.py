"""The example pictures in the input folder."""

import folder_paths
import pytest
from parts2whole.pictures.example_pictures import PICTURES, copy_example_pictures


@pytest.fixture
def inputs(tmp_path):
    """An input folder of its own."""
    before = folder_paths.get_input_directory()
    folder_paths.set_input_directory(str(tmp_path / "input"))
    yield tmp_path / "input"
    folder_paths.set_input_directory(before)


def test_what_is_missing_is_copied_and_nothing_else_left(inputs):
    copy_example_pictures()
    expected = {picture.name: picture.read_bytes() for picture in PICTURES.glob("*.png")}
    (inputs / "doll_face.png").write_bytes(b"the user's own")
    (inputs / "doll_pose.png").unlink()
    copy_example_pictures()
    expected["doll_face.png"] = b"the user's own"
    assert {file.name: file.read_bytes() for file in inputs.iterdir()} == expected


def test_a_link_that_lies_ready_is_not_written_through(inputs, tmp_path):
    inputs.mkdir()
    valuable = tmp_path / "valuable"
    valuable.write_text("kept")
    for picture in PICTURES.glob("*.png"):
        (inputs / picture.with_suffix(".part").name).symlink_to(valuable)
        (inputs / picture.name).symlink_to(tmp_path / "nothing")
    copy_example_pictures()
    assert valuable.read_text() == "kept" and not (tmp_path / "nothing").exists()
    assert all((inputs / picture.name).read_bytes() == picture.read_bytes() for picture in PICTURES.glob("*.png"))
