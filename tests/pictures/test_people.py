"""Several people in one frame: whose each place is."""

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from harness.workbench import run

TORSO, HEAD, FOOT = 2, 23, 5


def person(width=40, height=60, left=15, right=25):
    """A pose picture [1, H, W, 3] of one body: a head, a torso, feet; U and V are random."""
    image = torch.rand(1, height, width, 3)
    image[..., 2] = 0
    for part, top, bottom in ((HEAD, 5, 15), (TORSO, 15, 50), (FOOT, 50, 60)):
        image[0, top:bottom, left:right, 2] = part / 255
    image[..., :2] *= image[..., 2:] > 0
    return image


def people(*poses, width=80, height=60, **options):
    iuv, *regions = run(
        "Parts2WholePeople", poses={f"pose{i}": pose for i, pose in enumerate(poses)}, width=width, height=height, **options
    )
    assert len(regions) == 4
    return iuv, [region for region in regions if not isinstance(region, ExecutionBlocker)]


def together(*poses):
    return torch.cat(poses, 2)


def test_side_by_side():
    first, second = person(left=5, right=15), person(left=20, right=30)
    iuv, (a, b) = people(first, second)
    assert torch.equal(iuv, together(first, second))
    assert a.shape == (1, 60, 80) and (a + b == 1).all() and a.eq(0).logical_or(a.eq(1)).all()
    # From the bodies at columns 14 and 60 the middle is 37: the pixels to its left are nearer to the first.
    assert a[0, 30].nonzero().flatten().tolist() == [*range(38)]


def test_one_picture_of_two_is_told_apart_from_left_to_right():
    first, second = person(left=5, right=15), person(left=20, right=30)
    (iuv, regions), (iuv_2, regions_2) = people(together(first, second)), people(first, second)
    assert torch.equal(iuv, iuv_2) and all(torch.equal(*each) for each in zip(regions, regions_2, strict=True))


def test_a_piece_belongs_to_the_nearest_body():
    picture = together(person(), person())
    picture[0, 30:35, 30:34, 2] = 3 / 255  # a hand, nearer to the first body
    picture[0, 30:35, 48:51, 2] = 3 / 255
    _, (a, b) = people(picture)
    assert (a[0, 30:35, 30:34] == 1).all() and (b[0, 30:35, 48:51] == 1).all()


def test_one_person_has_the_whole_frame_and_the_same_pose():
    pose = person()
    iuv, (region,) = people(pose, width=40)
    assert torch.equal(iuv, pose) and region.eq(1).all()
    iuv, (region,) = people(pose, width=40, soft=0.2)
    assert region.eq(1).all(), "the frame's border is no edge"


def test_outputs_without_a_person_say_so_where_they_are_used():
    outputs = run("Parts2WholePeople", poses={"pose0": person()}, width=40, height=60)
    assert all("has 1 people. Connect one more pose" in output.message for output in outputs[2:])


def test_poses_keep_their_shape_and_stand_on_the_lower_edge():
    iuv, (a, b) = people(person(), person(), places="0 0.25, 0.5 0.5")
    index = (iuv[0, ..., 2] * 255).round().long()
    assert not index[:30, :20].any() and index[59, :20].any() and index[59, 40:].any()
    assert set(index.unique().tolist()) == {0, TORSO, HEAD, FOOT}, "part indices are not mixed"
    assert (a[0, 30:, 7:12] == 1).all() and (b[0, 5:, 55:65] == 1).all()


def test_later_poses_stand_in_front():
    iuv, (a, b) = people(person(), person(), places="0 0.5, 0.05 0.5")
    assert (b[0, 5:60, 19:29] == 1).all() and (a[0, 5:60, 15:19] == 1).all() and (a * b == 0).all()


def test_grow_limits_the_regions():
    _, (a, _) = people(person(), person(), grow=0.1)
    rows, columns = a[0].nonzero().T
    assert columns.min() == 15 - 6 and columns.max() == 24 + 6 and rows.min() == 0


def test_a_soft_border_is_on_ones_own_side_and_the_body_is_whole():
    (_, hard), (_, soft) = (people(person(), person(), soft=share) for share in (0, 0.2))
    for whole, region in zip(hard, soft, strict=True):
        assert (region <= whole).all() and (region[whole > 0] > 0).all() and (region < whole).any()
    assert (soft[0] * soft[1] == 0).all() and (soft[0][0, 5:60, 15:25] == 1).all()
    rise = soft[0][0, 30, 25:40]
    assert (rise.diff() <= 0).all() and rise[-1] < 0.1


def test_a_batch_has_regions_for_each():
    moving = torch.cat([person(left=5, right=15), person(left=20, right=30)])
    second = person()
    iuv, (a, b) = people(moving, second)
    assert iuv.shape == (2, 60, 80, 3) and a.shape == b.shape == (2, 60, 80) and not torch.equal(a[0], a[1])
    assert torch.equal(iuv[:1], people(moving[:1], second)[0])


def touching():
    picture = together(person(), person())
    picture[0, 30:34, 20:60, 2] = 15 / 255
    return picture


def headless():
    picture = together(person(), person())
    picture[0, 5:15, 40:, 2] = 0
    return picture


@pytest.mark.parametrize("poses, options, message", [
    ([], {}, "got 0 pose pictures. Connect one to 4"),
    ([person()] * 5, {}, "got 5 pose pictures"),
    ([touching()], {}, "body 1 from the left has 2 heads, so people cannot be told apart.*a pose picture for each person"),
    ([headless()], {}, "body 2 from the left has 0 heads"),
    ([torch.zeros(1, 60, 40, 3)], {}, "Pose picture 1 shows no body"),
    ([torch.ones(1, 60, 40, 3)], {}, "Pose picture 1 is another kind of picture, not raw IUV"),
    ([torch.full((1, 60, 40, 3), 9 / 255)], {}, "neither a torso nor a head"),
    ([person(), person()], {"places": "0 0.5"}, "There are 1 places for 2 pose pictures"),
    ([person(), person()], {"places": "0 0.5, left"}, "cannot read the place 'left'"),
    ([person(), person()], {"places": "0 0.5, 0 nan"}, "cannot read the place '0 nan'"),
    ([person(), person()], {"places": "0 0.5, 1 0.5"}, "Pose picture 2 shows no body in the frame"),
    ([person(), person()], {"places": "0 0.5, 0 0.5"}, "Person 1 is hidden behind others"),
    ([torch.cat([together(person(), person()), together(person(), 0 * person())])], {}, "show 1 or 2 people"),
])
def test_what_cannot_be_told_is_refused_with_words(poses, options, message):
    with pytest.raises(ValueError, match=message):
        people(*poses, **options)


def test_more_people_than_outputs_are_refused():
    with pytest.raises(ValueError, match="shows 5 people"):
        people(together(*[person()] * 5), width=200)
