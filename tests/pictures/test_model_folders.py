"""Files and folders chosen by name, where links lead about."""

import os

import pytest
from parts2whole.encoders.checkpoint.files import list_checkpoints
from parts2whole.pictures.model_folders import choices, names_below, path_below


def is_model(path):
    return os.path.isfile(os.path.join(path, "model"))


def make(folder):
    folder.mkdir(parents=True)
    (folder / "model").touch()


def link(place, target):
    place.symlink_to(target, target_is_directory=True)


def test_links_to_an_ancestor_are_not_followed(tmp_path):
    root = tmp_path / "models" / "kind"
    make(root / "one")
    make(root / "deep" / "two")
    make(tmp_path / "models" / "other" / "three")
    for name in ("x", "y"):  # two make every depth of forty, with either name at each
        link(root / name, "..")
        link(root / "deep" / name, "..")
    assert names_below([str(root)], is_model) == ["deep/two", "one"]


def test_links_elsewhere_are_followed_and_circles_end(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    make(first / "one")
    make(second / "two")
    link(first / "to_second", second)
    for i in range(12):
        link(second / f"back{i}", first)
        link(second / f"aside{i}", tmp_path / f"hall{i}")
        (tmp_path / f"hall{i}").mkdir()
        for j in range(12):
            link(tmp_path / f"hall{i}" / f"door{j}", tmp_path / f"hall{j}")
    assert names_below([str(first)], is_model) == ["one", "to_second/two"]


def test_a_linked_model_is_found_by_the_links_name(tmp_path):
    make(tmp_path / "elsewhere")
    (tmp_path / "root").mkdir()
    for name in ("a", "b"):
        link(tmp_path / "root" / name, tmp_path / "elsewhere")
    assert names_below([str(tmp_path / "root")], is_model) == ["a", "b"]


def test_the_server_starts_with_two_links_up_in_its_checkpoints(folders):
    root = folders / "models" / "parts2whole"
    for name in ("x", "y"):
        link(root / name, "..")
    try:
        assert list_checkpoints() == ["paper_doll", "tiny"]
    finally:
        for name in ("x", "y"):
            (root / name).unlink()


def test_the_first_root_that_has_a_name_gives_it(tmp_path):
    (tmp_path / "a" / "one").mkdir(parents=True)  # nothing in it
    make(tmp_path / "b" / "one")
    make(tmp_path / "c" / "one")
    roots = [str(tmp_path / name) for name in "abc"]
    assert path_below("one", roots, is_model, "model", "") == str(tmp_path / "b" / "one")


def test_an_empty_list_says_so_and_choosing_that_says_what_to_do(tmp_path):
    assert choices(["one"], "models/kind") == ["one"]
    (chosen,) = choices([], "models/kind")
    with pytest.raises(FileNotFoundError, match="^No model was found in .*root. Put it there.$"):
        path_below(chosen, [str(tmp_path / "root")], is_model, "model", "Put it there.")
    make(tmp_path / "root" / chosen)
    assert path_below(chosen, [str(tmp_path / "root")], is_model, "model", "") == str(tmp_path / "root" / chosen), "a folder's name"


@pytest.mark.parametrize("name", ["", ".", "..", "../b/one", "nested/../one", "a\nb", None, ["one"], "one\0"])
def test_other_names_are_refused_with_the_roots(tmp_path, name):
    make(tmp_path / "root" / "one")
    make(tmp_path / "b" / "one")
    with pytest.raises(FileNotFoundError, match="^No model '.*' in .*root. Put it there.$"):
        path_below(name, [str(tmp_path / "root")], is_model, "model", "Put it there.")
