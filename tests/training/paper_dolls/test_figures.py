"""The dolls: the same on every machine, true about their regions, and told apart by what is measured."""

import json
from itertools import product

import numpy as np
import pytest

from training.config import DataConfig
from training.dataset import PartsDataset, open_dataset
from training.paper_dolls.figure import EYE_COLOURS, FACE, HEADWEAR, LABELS, LIPS, PATTERNED, PATTERNS, SHAPES
from training.paper_dolls.measure import (
    SMALLEST_PATTERN,
    SMALLEST_REGION,
    colour_error,
    find_features,
    find_figure,
    find_pattern,
    measure,
    overlap,
    palette,
    seen,
)
from training.paper_dolls.pairs import Pair, PaperDolls, write

PAIRS = [Pair(7, i) for i in range(8)]


@pytest.fixture(scope="module")
def drawings():
    return [pair.drawing for pair in PAIRS]


def parts(drawings):
    for pair, drawing in zip(PAIRS, drawings):
        for label, wear in pair.doll.wears.items():
            yield pair, drawing, label, wear, seen(drawing.regions[label])


def test_what_a_kind_would_show_is_what_cloth_of_that_kind_shows(drawings):
    """Painted with its second colour by these amounts, plain cloth becomes the target's own; but for trimmings and folds."""
    kinds, shares = set(), []
    for pair, drawing, label, wear, region in parts(drawings):
        number, known = list(pair.doll.wears).index(label), pair.known(drawing)
        assert (0 <= known.kinds[number] < len(PATTERNS)) == (label in PATTERNED)
        if wear.pattern == "plain" or region.sum() < SMALLEST_PATTERN:
            continue
        kinds.add(wear.pattern)
        assert PATTERNS[known.kinds[number]] == wear.pattern
        amount = known.amounts[PATTERNS.index(wear.pattern) - 1][region][:, None]
        first, second = (np.array(colour) * 255 for colour in wear.colours)
        off = np.abs(first + amount * (second - first) - drawing.image[region]).max(-1)
        shares.append(np.mean(off < 3))
    assert len(kinds) >= 4 and min(shares) > 0.6 and np.mean(shares) > 0.8, shares


def test_references_tell_where_they_show_their_patterns():
    """As targets do, above."""
    shares = []
    for pair in PAIRS[:4]:
        for label, wear in pair.doll.wears.items():
            reference = pair.reference(label)
            region = seen(np.asarray(reference.mask) / 255)
            if label not in PATTERNED or wear.pattern == "plain":
                assert not reference.shown.any()
            elif region.sum() >= SMALLEST_PATTERN:
                assert reference.shown[np.asarray(reference.mask) == 0].max() < 1 / 255
                first, second = (np.array(colour) * 255 for colour in wear.colours)
                image = np.asarray(reference.image)[region]
                off = np.abs(first + reference.shown[region][:, None] * (second - first) - image).max(-1)
                shares.append(np.mean(off < 3))
    assert len(shares) >= 4 and min(shares) > 0.6 and np.mean(shares) > 0.7, shares


def test_what_is_known_of_faces_tells_their_eyes(drawings):
    for pair, drawing in zip(PAIRS, drawings):
        known, wear = pair.known(drawing), pair.doll.wears[FACE]
        assert known.kinds[list(pair.doll.wears).index(FACE)] == len(PATTERNS) + EYE_COLOURS.index(wear.colours[1])
        details = np.asarray(known.details) > 250
        colours = np.round([255 * np.array(colour) for colour in (wear.colours[1], LIPS)])
        shown = [np.abs(drawing.image[details] - colour).max(-1) < 3 for colour in colours]
        # The rest is pupils, teeth and glasses.
        assert min(np.mean(each) for each in shown) > 0.1 and np.mean(np.any(shown, 0)) > 0.4


def test_everything_depends_on_seed_and_index_alone():
    a, b = PaperDolls(4, seed=3)[2], PaperDolls(9, seed=3)[2]
    assert a.caption == b.caption
    assert a.target.size == (256, 384)
    for one, other in ((a.target, b.target), (a.pose, b.pose), (a.references[0].image, b.references[0].image)):
        assert one.tobytes() == other.tobytes()
    assert a.target.tobytes() != Pair(3, 1).drawing.image.tobytes()
    assert a.target.tobytes() != Pair(4, 2).drawing.image.tobytes()


def test_the_configuration_names_them_and_they_end():
    dolls = open_dataset(DataConfig(paper_dolls=4, seed=3, width=256, height=384))
    assert isinstance(dolls, PaperDolls) and len(dolls) == 4
    with pytest.raises(IndexError):
        dolls[4]


def test_regions_cover_the_figure_once(drawings):
    for drawing in drawings:
        total = sum(drawing.regions.values())
        assert total.max() < 1.001
        assert (total <= drawing.figure + 1e-3).all()


def test_all_labels_shapes_and_patterns_appear():
    dolls = [Pair(7, i).doll for i in range(400)]
    worn = [(label, wear) for doll in dolls for label, wear in doll.wears.items()]
    assert {label for label, _ in worn} == set(LABELS)
    assert {wear.pattern for _, wear in worn} == set(PATTERNS) and len(PATTERNS) == 6
    assert {(label, wear.shape) for label, wear in worn} == {(label, shape) for label in LABELS for shape in SHAPES[label]}
    assert any(len(doll.wears) == 6 for doll in dolls)


def test_regions_have_the_parts_colours_patterns_and_features(drawings):
    found = []
    for pair, drawing, label, wear, region in parts(drawings):
        if region.sum() >= SMALLEST_REGION:
            assert colour_error(drawing.image, region, palette(label, wear)) < 6, (pair.index, label)  # edges, folds and strands
        if label in PATTERNED and region.sum() >= SMALLEST_PATTERN:
            found.append(find_pattern(drawing.image, region, pair.doll, pair.view) == wear.pattern)
    # A dress's pattern begins anew at the waist.
    assert len(found) > 12 and np.mean(found) > 0.9
    for pair, drawing in zip(PAIRS, drawings):
        features = find_features(drawing.image, pair.doll, pair.view, drawing.regions[FACE])
        assert "mouth" in features and all(features.values())


def test_every_pattern_is_found_on_every_garment():
    found = []
    for pair, pattern in product(PAIRS[:4], PATTERNS):
        for label in set(PATTERNED) & set(pair.doll.wears):
            wear = pair.doll.wears[label]
            colours = ((0.9, 0.2, 0.2), (0.1, 0.2, 0.5))
            colours = colours[:1] * 2 if pattern == "plain" else colours
            other = pair.with_wear(label, wear._replace(pattern=pattern, colours=colours))
            drawing = other.drawing
            region = seen(drawing.regions[label])
            if region.sum() >= SMALLEST_PATTERN:
                found.append(find_pattern(drawing.image, region, other.doll, other.view) == pattern)
    # Shorts are short for a zigzag.
    assert len(found) > 50 and np.mean(found) > 0.97


def test_measures_tell_a_wrong_picture(drawings):
    """What is measured on true pictures must not be good on those of other figures."""
    others = {pair.index: other.image for pair, other in zip(PAIRS, drawings[1:] + drawings[:1])}
    errors = [
        colour_error(others[pair.index], region, palette(label, wear))
        for pair, _, label, wear, region in parts(drawings) if region.sum() >= SMALLEST_REGION
    ]
    assert np.mean(errors) > 12
    found = [find_figure(drawing.image, pair.doll.background) for pair, drawing in zip(PAIRS, drawings)]
    assert np.mean([overlap(a, drawing.figure > 0.5) for a, drawing in zip(found, drawings)]) > 0.95
    assert np.mean([overlap(a, drawing.figure > 0.5) for a, drawing in zip(found, drawings[1:])]) < 0.8


def test_a_face_without_features_or_with_other_eyes_is_told(drawings):
    for pair, drawing in zip(PAIRS[:4], drawings):
        wear = pair.doll.wears[FACE]
        blank = drawing.image.copy()
        blank[drawing.regions[FACE] > 0.5] = np.array(wear.colours[0]) * 255
        assert not any(find_features(blank, pair.doll, pair.view, drawing.regions[FACE]).values())
        other = pair.with_wear(FACE, wear._replace(colours=(wear.colours[0], (0.9, 0.8, 0.1))))
        found = find_features(drawing.image, other.doll, other.view, drawing.regions[FACE])
        assert found["mouth"] and not found.get("left eye") and not found.get("right eye")


def test_references_show_the_same_part_on_another_figure():
    for pair in PAIRS[:3]:
        for label, wear in pair.doll.wears.items():
            reference = pair.reference(label)
            mask = seen(np.asarray(reference.mask) / 255)
            assert reference.image.tobytes() != pair.drawing.image.tobytes()
            assert colour_error(np.asarray(reference.image), mask, palette(label, wear)) < 6
        assert pair.reference(label, take=1).image.tobytes() != pair.reference(label).image.tobytes()


def test_a_hat_shows_the_hair_under_it():
    hats = [Pair(7, i) for i in range(60) if Pair(7, i).doll.wears[LABELS[1]].shape in HEADWEAR]
    assert {pair.doll.wears[LABELS[1]].shape for pair in hats} == set(HEADWEAR)
    for pair in hats[:4]:
        wear = pair.doll.wears[LABELS[1]]
        green = pair.with_wear(LABELS[1], wear._replace(colours=(wear.colours[0], (0.0, 1.0, 0.0))))
        region = pair.drawing.regions[LABELS[1]] > 0.9
        assert (green.drawing.image[region] == (0, 255, 0)).all(-1).any()


def test_the_pose_is_raw_iuv():
    pose = PAIRS[0].pose
    assert set(np.unique(pose[..., 2])) <= set(range(25))
    body = pose[..., 2] > 0
    assert 0.05 < body.mean() < 0.4
    assert len(np.unique(pose[..., 0][body])) > 100  # U and V are smooth
    assert (pose[~body] == 0).all()
    figure = PAIRS[0].drawing.figure > 0.5
    assert (body & figure).sum() > 0.95 * body.sum()


def test_written_and_read_again(tmp_path):
    dolls = PaperDolls(2, seed=5)
    write(dolls, tmp_path)
    row = json.loads((tmp_path / "train.jsonl").read_text().splitlines()[0])
    assert row["target_id"] != row["reference_id"]
    assert set(row) == {"target_id", "reference_id", "target", "caption", "appearance", "structure", "mask"}
    assert all(path.endswith("_rgb.jpg") for path in row["appearance"].values())
    assert all(path.endswith("_mask.jpg") for path in row["mask"].values())
    read = PartsDataset(tmp_path / "train.jsonl")
    for sample, again in zip(dolls, (read[i] for i in range(2))):
        assert again.caption == sample.caption
        assert again.pose.tobytes() == sample.pose.tobytes()
        assert [reference.label for reference in again.references] == [reference.label for reference in sample.references]
        for a, b in (
            (again.target, sample.target), (again.references[0].image, sample.references[0].image),
            (again.references[0].mask, sample.references[0].mask),
        ):
            assert a.mode == b.mode and np.abs(np.asarray(a, float) - np.asarray(b, float)).mean() < 3  # JPEG


@pytest.mark.parametrize("row, message", [
    ({"target": "a.jpg", "caption": "x", "appearance": {"face": "b.jpg"}, "mask": {}}, "line 1: lacks mask of face"),
    ({"target": "a.jpg", "appearance": {}, "mask": {}}, "line 1: lacks caption"),
])
def test_incomplete_rows_are_named(tmp_path, row, message):
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        PartsDataset(tmp_path / "train.jsonl")


def test_a_figure_can_be_given_other_clothes(drawings):
    pair, label, red = PAIRS[0], "shoes", (1.0, 0.0, 0.0)
    other = pair.with_wear(label, pair.doll.wears[label]._replace(colours=(red, red)))
    assert other.doll.body is pair.doll.body
    region, changed = drawings[0].regions[label], (other.drawing.image != drawings[0].image).any(-1)
    assert changed[region > 0.9].mean() > 0.3 and not changed[region == 0].any()
    assert colour_error(other.drawing.image, region > 0.9, palette(label, other.doll.wears[label])) < 6


def test_means_are_best_for_the_true_picture():
    true = measure(PAIRS[:3], lambda pair: pair.drawing.image)
    blank = measure(PAIRS[:3], lambda pair: np.full((384, 256, 3), 128, np.uint8))
    assert true.colour < 3 and true.pattern == true.features == 1 and true.pose > 0.95
    assert blank.colour > 15 and blank.features == 0 and blank.pose < 0.5
