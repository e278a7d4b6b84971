"""Outfit Grid and Outfit Sheet, called as the host calls nodes that take lists."""

import pytest
import torch
from harness.workbench import run
from parts2whole.sheets.outfit_sheet import THUMBNAIL
from parts2whole.sheets.sheet import GAP, LINE

HEIGHT = 64


def parts(clip, *labels):
    """Parts of pictures in one colour each, by the label's place."""
    made = {
        f"part{i}": run("Parts2WholeMakePart", image=torch.full((1, 64, 64, 3), i / 10), label=label)
        for i, label in enumerate(labels)
    }
    return run("Parts2WholeEncodeLabels", clip=clip, parts=made)


def labels(outfits):
    return [[labelled.part.label for labelled in outfit] for outfit in outfits]


def images(count):
    return [torch.full((1, HEIGHT, 48, 3), (i + 1) / 10) for i in range(count)]


def test_each_part_of_one_parts_is_a_row_or_column_of_its_own(checkpoint):
    faces, garments = parts(checkpoint.clip, "face", "mask"), parts(checkpoint.clip, "shirt", "coat", "suit")
    shared = parts(checkpoint.clip, "shoes")
    outfits, grid = run("Parts2WholeOutfitGrid", rows=[faces], columns=[garments], shared=[shared])
    assert labels(outfits) == [[face, garment, "shoes"] for face in ("face", "mask") for garment in ("shirt", "coat", "suit")]
    assert labels(grid.rows) == [["face"], ["mask"]] and labels(grid.columns) == [["shirt"], ["coat"], ["suit"]]


def test_each_of_several_parts_is_one_row_or_column_with_all_it_has(checkpoint):
    faces = parts(checkpoint.clip, "face", "mask")
    outfits, grid = run(
        "Parts2WholeOutfitGrid", rows=[faces], columns=[parts(checkpoint.clip, "shirt", "shorts"), parts(checkpoint.clip, "suit")]
    )
    assert labels(outfits) == [["face", "shirt", "shorts"], ["face", "suit"], ["mask", "shirt", "shorts"], ["mask", "suit"]]
    assert len(grid.rows) == len(grid.columns) == 2


def test_every_part_of_a_grid_is_encoded_once(checkpoint, monkeypatch):
    from parts2whole.encoders import appearance

    encoded, encode_reference = [], appearance.encode_reference

    def count(encoder, latent, mask, labelled, *frame):
        encoded.append(labelled.part.label)
        return encode_reference(encoder, latent, mask, labelled, *frame)

    monkeypatch.setattr(appearance, "encode_reference", count)
    outfits, _ = run(
        "Parts2WholeOutfitGrid", rows=[parts(checkpoint.clip, "face", "mask")], columns=[parts(checkpoint.clip, "shirt", "coat")]
    )
    appearances = [
        run("Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, vae=checkpoint.vae, parts=outfit,
            width=64, height=64)
        for outfit in outfits
    ]
    assert sorted(encoded) == ["coat", "face", "mask", "shirt"]
    assert [[r.label for r in a.references] for a in appearances] == labels(outfits)


def test_the_sheet_has_every_picture_in_its_place(checkpoint):
    _, grid = run(
        "Parts2WholeOutfitGrid", rows=[parts(checkpoint.clip, "a", "b")], columns=[parts(checkpoint.clip, "c", "d", "e")]
    )
    sheet = run("Parts2WholeOutfitSheet", images=images(6), grid=[grid], height=[HEIGHT])[0]
    head = THUMBNAIL + LINE
    assert sheet.shape == (head + 2 * head + 4 * GAP, THUMBNAIL * 4 + 5 * GAP, 3), "a thumbnail is larger than a picture here"
    centre = THUMBNAIL // 2
    at = [GAP + i * (GAP + THUMBNAIL) + centre for i in range(4)]
    down = [GAP + i * (GAP + head) + head // 2 for i in range(3)]
    seen = [[float(sheet[y, x, 0]) for x in at[1:]] for y in down[1:]]
    assert torch.allclose(torch.tensor(seen), torch.tensor([[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]), atol=0.01)
    assert sheet[GAP + centre, at[1:], 0].tolist() == pytest.approx([0, 0.1, 0.2], abs=0.01), "columns' parts above"
    assert [float(sheet[y - LINE // 2, at[0], 0]) for y in down[1:]] == pytest.approx([0, 0.1], abs=0.01), "rows' parts beside"


def test_a_heading_shows_what_the_mask_lets_through(checkpoint):
    image, mask = torch.zeros(1, 80, 60, 3), torch.zeros(1, 40, 30)
    image[:, 20:40, 30:60] = 1
    mask[:, 10:20, 15:30] = 1
    part = run("Parts2WholeMakePart", image=image, label="a", mask=mask)
    one = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    _, grid = run("Parts2WholeOutfitGrid", rows=[one], columns=[one])
    sheet = run("Parts2WholeOutfitSheet", images=images(1), grid=[grid], height=[HEIGHT])[0]
    assert sheet[GAP + 4, 2 * GAP + THUMBNAIL * 3 // 2:-GAP].min() == 1, "1.5 times as wide as high, and white to the edge"


def test_the_pictures_of_a_batch_lie_side_by_side(checkpoint):
    one = parts(checkpoint.clip, "a")
    _, grid = run("Parts2WholeOutfitGrid", rows=[one], columns=[one])
    batch = torch.stack([torch.zeros(HEIGHT, 200, 3), torch.ones(HEIGHT, 200, 3)])
    sheet = run("Parts2WholeOutfitSheet", images=[batch], grid=[grid], height=[128])[0]
    assert sheet.shape[1] == THUMBNAIL + 2 * 400 + 4 * GAP
    row = sheet[GAP + THUMBNAIL + LINE + GAP + 64]
    assert row[THUMBNAIL + 2 * GAP + 200].max() == 0 and row[-GAP - 200].min() == 1


def test_an_empty_list_is_refused(checkpoint):
    with pytest.raises(ValueError, match="no rows or no columns"):
        run("Parts2WholeOutfitGrid", rows=[], columns=[parts(checkpoint.clip, "a")])


def test_another_number_of_images_is_refused(checkpoint):
    one = parts(checkpoint.clip, "a")
    _, grid = run("Parts2WholeOutfitGrid", rows=[one], columns=[one])
    with pytest.raises(ValueError, match=r"got 2 image\(s\), but the grid has 1 row\(s\) and 1 column\(s\), so 1"):
        run("Parts2WholeOutfitSheet", images=images(2), grid=[grid], height=[HEIGHT])


def test_grids_in_grids_are_refused(checkpoint):
    ten = parts(checkpoint.clip, *"abcdefghij")
    outfits, _ = run("Parts2WholeOutfitGrid", rows=[ten], columns=[ten])
    with pytest.raises(ValueError, match="100 rows and 100 columns, which makes 10000 pictures: at most 1024"):
        run("Parts2WholeOutfitGrid", rows=outfits, columns=outfits)
    one = [parts(checkpoint.clip, "a")]
    with pytest.raises(ValueError, match="202 parts into one picture: at most 64"):
        run("Parts2WholeOutfitGrid", rows=one, columns=one, shared=outfits)


def test_appearances_combined_again_and_again_are_refused(appearance):
    for _ in range(2):
        appearance = run("Parts2WholeCombineAppearances", appearances={f"appearance{i}": appearance for i in range(8)})
    assert len(appearance.references) == 192
    with pytest.raises(ValueError, match="got 384 references: at most 256"):
        run("Parts2WholeCombineAppearances", appearances={f"appearance{i}": appearance for i in range(2)})
