"""Several pictures at once become parts, labelled by their files' names or all alike."""

import pytest
import torch
from harness.host import our_nodes
from harness.pictures import save
from harness.workbench import run
from parts2whole.pictures.part_files import MOST_PARTS, label_of
from PIL import Image

NAMES = ["my face.png", "red scarf 2.png", "blue_shoes.png"]


@pytest.fixture(autouse=True)
def pictures(folders):
    for i, name in enumerate(NAMES):
        save(Image.new("RGBA", (20 + i, 30), (200, 40 * i, 0, 255)), name)
        save(Image.new("RGBA", (20 + i, 30), (200, 40 * i, 0, 255)), f"outfit/{name}")
    yield
    for name in NAMES:
        (folders / "input" / name).unlink()
        (folders / "input" / "outfit" / name).unlink()
    (folders / "input" / "outfit").rmdir()


def node():
    return our_nodes()["Parts2WholeLoadParts"]


@pytest.mark.parametrize("name, label", [
    ("my_upper_body_clothes_2.png", "upper body clothes"), ("outfit/Face.JPG", "face"), ("surface 12.png", "surface"),
    ("hair.png [input]", "hair or headwear"), ("red scarf (3).jpg", "red scarf"), ("007.png", "007"), ("shoes-left.webp", "shoes"),
    ("whole body clothes and face.png", "whole body clothes"), ("帽子_2.png", "帽子"),
])
def test_a_files_name_tells_the_label(name, label):
    assert label_of(name) == label


def test_each_picture_is_a_part():
    images = "\r\n".join(NAMES) + "\n\n"
    parts = run("Parts2WholeLoadParts", images=images)
    assert [part.label for part in parts] == ["face", "red scarf", "shoes"]
    assert [tuple(part.image.shape[1:3]) for part in parts] == [(30, 20), (30, 21), (30, 22)]
    assert {part.label for part in run("Parts2WholeLoadParts", images=images, label="shoes")} == {"shoes"}


def test_all_of_a_folder(folders):
    parts = run("Parts2WholeLoadParts", images="", folder="outfit", mask_source="whole picture")
    assert [part.label for part in parts] == ["shoes", "face", "red scarf"] and parts[0].mask.eq(1).all()
    (_, folder, *_) = node().define_schema().inputs
    assert folder.options == ["none", "outfit"]
    before = node().fingerprint_inputs(images="", folder="outfit")
    save(Image.new("RGB", (4, 4)), "outfit/blue_shoes.png")
    assert node().fingerprint_inputs(images="", folder="outfit") != before


def test_they_are_worn_and_shown_together(checkpoint, caplog):
    output = node().execute(images="\n".join(NAMES))
    assert f"a picture counts as the part with its background: {', '.join(NAMES)}. Take cut-outs" in caplog.text
    assert output.ui["parts2whole_kept"] == (1.0,) * 3 and len(output.ui["images"]) == 1
    face = run("Parts2WholeMakePart", image=torch.ones(1, 8, 8, 3), label="face", mask=None)
    labelled = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": face, "part1": output[0]})
    assert [each.part.label for each in labelled] == ["face", "face", "red scarf", "shoes"]
    image, mask = run("Parts2WholeCutOut", part=output[0])
    assert image.shape[0] == mask.shape[0] == 3


@pytest.mark.parametrize("images, folder, words", [
    ("", "none", "got no picture: choose several"), (" \n", "none", "got no picture"),
    ("my face.png\ngone.png", "none", "Invalid image file: gone.png"), ("../secret.png", "none", "Invalid image file"),
    ("", "..", "found no picture in the folder '..'"), ("", "gone", "found no picture in the folder 'gone'"),
    ("", "outfit/..", "found no picture"), ("my face.png\n" * (MOST_PARTS + 1), "none", "at most 64 are read"),
], ids=str)
def test_what_is_no_picture_there_is_refused_with_words(images, folder, words):
    assert words in node().validate_inputs(images=images, folder=folder)
    with pytest.raises(ValueError, match=words.replace("..", r"\.\.")):
        node().execute(images=images, folder=folder)


def test_pictures_that_are_cut_out_or_meant_whole_are_not_warned_of(caplog):
    picture = Image.new("RGBA", (20, 30), "red")
    picture.putpixel((0, 0), (0, 0, 0, 0))
    save(picture, "cut_shoes.png")
    run("Parts2WholeLoadParts", images="cut_shoes.png")
    for source in ("alpha", "whole picture"):
        run("Parts2WholeLoadParts", images="\n".join(NAMES), mask_source=source)
    assert not caplog.text
