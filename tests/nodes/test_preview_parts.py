"""The contact sheet of Preview Parts."""

import torch
from harness.workbench import golden_parts, run
from parts2whole.sheets.parts_sheet import REMOVED, TILE
from parts2whole.sheets.sheet import GAP, LINE, PAPER

WHITE = torch.ones(1, 64, 64, 3)


def labelled(clip, **inputs):
    return run("Parts2WholeEncodeLabels", clip=clip, parts={"part0": run("Parts2WholeMakePart", label="face", **inputs)})


def test_what_the_mask_removes_is_red(checkpoint):
    mask = torch.zeros(1, 64, 64)
    mask[:, :, :32] = 1  # the left half; a column of tokens of 8 pixels is added by dilation
    sheet = run("Parts2WholePreviewParts", parts=labelled(checkpoint.clip, image=WHITE, mask=mask), width=64, height=64)
    top = GAP + LINE + TILE + GAP
    row = (sheet[0, top + TILE // 2, GAP:GAP + TILE] * 255).round()
    kept, removed = row[:TILE * 5 // 8 - 16], row[TILE * 5 // 8 + 16:]  # the filter rings at the edge
    assert kept.eq(255).all()
    expected = torch.tensor([0.3 * 255 + 0.7 * channel for channel in REMOVED])
    assert (removed - expected).abs().max() <= 2
    given = (sheet[0, GAP + LINE + TILE // 2, GAP:GAP + TILE] * 255).round()
    assert given.eq(255).all(), "as given, nothing is removed"


def test_a_cut_out_lies_on_the_paper_as_given_and_on_white_for_the_encoder(checkpoint):
    image = torch.cat([torch.zeros(1, 64, 64, 3), torch.zeros(1, 64, 64, 1)], -1)
    image[:, :8, :8, 3] = 1
    sheet = (run("Parts2WholePreviewParts", parts=labelled(checkpoint.clip, image=image), width=64, height=64)[0] * 255).round()
    assert sheet[GAP + LINE + TILE - 4, GAP + 4].tolist() == list(PAPER)
    assert sheet[GAP + LINE + TILE + GAP + 4, GAP + 4].tolist() == [0, 0, 0]
    assert (sheet[GAP + LINE + 2 * TILE + GAP - 4, GAP + TILE - 4] - torch.tensor(REMOVED) * 0.7 - 0.3 * 255).abs().max() <= 2


def test_every_picture_has_a_column(checkpoint):
    sheet = run("Parts2WholePreviewParts", parts=golden_parts(checkpoint.clip, 3), width=128, height=192)[0]
    row = (sheet[GAP + LINE + 2 * TILE] * 255).round().ne(torch.tensor(PAPER)).any(-1)  # through the lower tiles
    begins = (row[1:] & ~row[:-1]).sum()
    assert begins == 3 and sheet.shape[0] == 2 * (TILE + GAP) + 4 * LINE + 2 * GAP


def test_a_label_that_the_sheet_cannot_show_is_in_the_nodes_text(checkpoint):
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS["Parts2WholePreviewParts"]
    label = "a long red knitted sweater " * 9
    part = run("Parts2WholeMakePart", label=label, image=WHITE)
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    assert node.execute(parts=parts, width=64, height=64).ui["text"] == (f"part 1: {label.strip()}",)
    assert "text" not in node.execute(parts=labelled(checkpoint.clip, image=WHITE), width=64, height=64).ui
