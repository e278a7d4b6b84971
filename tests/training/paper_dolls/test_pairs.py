"""The procedural dataset: the same on every machine, true about its regions, and on disk as the published one is."""

import json

import numpy as np
import pytest

from training.dataset import PartsDataset
from training.dolls.measure import change, colour_error, find_figure, overlap, seen
from training.paper_dolls.figure import LABELS, PATTERNS
from training.paper_dolls.measure import PATTERNED, SMALLEST_PATTERN, SMALLEST_REGION, find_pattern, palette
from training.paper_dolls.pairs import Pair, PaperDolls, write

PAIRS = [Pair(7, i) for i in range(24)]


def parts(pairs):
    for pair in pairs:
        drawing = pair.drawing
        for label, wear in pair.doll.wears.items():
            yield pair, drawing, label, wear, seen(drawing.regions[label])


def test_everything_depends_on_seed_and_index_alone():
    a, b = PaperDolls(4, seed=3), PaperDolls(9, seed=3)
    assert a[2].caption == b[2].caption
    for one, other in ((a[2].target, b[2].target), (a[2].pose, b[2].pose), (a[2].references[0].image, b[2].references[0].image)):
        assert one.tobytes() == other.tobytes()
    assert a[2].target.tobytes() != a[1].target.tobytes()
    assert a[2].target.tobytes() != PaperDolls(4, seed=4)[2].target.tobytes()


def test_a_dataset_ends():
    with pytest.raises(IndexError):
        PaperDolls(4, seed=3)[4]


def test_regions_cover_the_figure_once():
    for pair in PAIRS:
        drawing = pair.drawing
        total = sum(drawing.regions.values())
        assert total.max() < 1.001
        assert (total <= drawing.figure + 1e-3).all()


def test_all_labels_shapes_and_patterns_appear():
    dolls = [Pair(7, i).doll for i in range(200)]
    assert {label for doll in dolls for label in doll.wears} == set(LABELS)
    assert {wear.pattern for doll in dolls for wear in doll.wears.values()} == set(PATTERNS)
    assert any(len(doll.wears) == 6 for doll in dolls)


def test_regions_have_the_parts_colours_and_patterns():
    for pair, drawing, label, wear, region in parts(PAIRS):
        if region.sum() >= SMALLEST_REGION:
            assert colour_error(drawing.image, region, palette(label, wear)) < 6, (pair.index, label)  # edges
        if label in PATTERNED and region.sum() >= SMALLEST_PATTERN:
            assert find_pattern(drawing.image, region, pair.doll, pair.view) == wear.pattern


def test_references_show_the_same_part_on_another_figure():
    for pair in PAIRS[:8]:
        for label, wear in pair.doll.wears.items():
            reference = pair.reference(label)
            mask = seen(np.asarray(reference.mask) / 255)
            assert reference.image.tobytes() != pair.drawing.image.tobytes()
            if mask.sum() >= SMALLEST_REGION:
                assert colour_error(np.asarray(reference.image), mask, palette(label, wear)) < 6
        assert pair.reference(label, take=1).image.tobytes() != pair.reference(label).image.tobytes()


def test_measures_tell_a_wrong_picture():
    """What is measured on true pictures must not be good on those of other figures."""
    others = {pair.index: other.drawing.image for pair, other in zip(PAIRS, PAIRS[1:] + PAIRS[:1])}
    errors = [
        colour_error(others[pair.index], region, palette(label, wear))
        for pair, drawing, label, wear, region in parts(PAIRS) if region.sum() >= SMALLEST_REGION
    ]
    assert np.mean(errors) > 15
    true = [pair.drawing for pair in PAIRS]
    found = [find_figure(drawing.image, pair.doll.background) for pair, drawing in zip(PAIRS, true)]
    assert np.mean([overlap(a, drawing.figure > 0.5) for a, drawing in zip(found, true)]) > 0.95
    assert np.mean([overlap(a, drawing.figure > 0.5) for a, drawing in zip(found, true[1:])]) < 0.8
    image = true[0].image
    assert change(image, image, np.ones(image.shape[:2], bool)) == 0


def test_the_pose_is_raw_iuv():
    pose = Pair(7, 0).pose
    assert set(np.unique(pose[..., 2])) <= set(range(25))
    body = pose[..., 2] > 0
    assert 0.05 < body.mean() < 0.4
    assert len(np.unique(pose[..., 0][body])) > 100  # U and V are smooth
    assert (pose[~body] == 0).all()


def test_a_figure_can_be_given_other_clothes():
    pair = PAIRS[0]
    label = "shoes"
    other = pair.with_wear(label, pair.doll.wears[label]._replace(colours=((1.0, 0.0, 0.0), (1.0, 0.0, 0.0))))
    assert other.doll.body is pair.doll.body
    region = pair.drawing.regions[label] > 0.9
    assert (other.drawing.image[region] == (255, 0, 0)).all()
    assert (other.drawing.image[pair.drawing.regions[label] == 0] == pair.drawing.image[pair.drawing.regions[label] == 0]).all()


def test_written_and_read_again(tmp_path):
    dolls = PaperDolls(3, seed=5)
    write(dolls, tmp_path)
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert set(row) == {"target_id", "reference_id", "target", "caption", "appearance", "structure", "mask"}
    assert all(path.endswith("_rgb.jpg") for path in row["appearance"].values())
    assert all(path.endswith("_mask.jpg") for path in row["mask"].values())

    read = PartsDataset(tmp_path / "train.jsonl")
    assert len(read) == 3
    for drawn, sample in zip(dolls, read):
        assert sample.caption == drawn.caption
        assert sample.pose.tobytes() == drawn.pose.tobytes()
        assert [r.label for r in sample.references] == [r.label for r in drawn.references]
        for a, b in zip((drawn.target, drawn.references[0].image, drawn.references[0].mask),
                        (sample.target, sample.references[0].image, sample.references[0].mask)):
            assert a.mode == b.mode
            assert np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() < 3  # JPEG


@pytest.mark.parametrize("row, message", [
    ({"target": "a.jpg", "caption": "x", "appearance": {"face": "b.jpg"}, "mask": {}}, "line 1: lacks mask of face"),
    ({"target": "a.jpg", "appearance": {}, "mask": {}}, "line 1: lacks caption"),
])
def test_incomplete_rows_are_named(tmp_path, row, message):
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        PartsDataset(tmp_path / "train.jsonl")
