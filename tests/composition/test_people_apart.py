"""Two people in one frame, each with parts of their own: in one's place the other's have no weight at all."""

import pytest
import torch
import torch.nn.functional as F
from harness.workbench import apply_parts, apply_pose, noise, rel, run, text
from parts2whole.attention.attention_shares import attention_shares
from parts2whole.attention.patch.attribution import Attribution
from parts2whole.attention.patch.region_map import region_of
from parts2whole.pictures.crop import WHOLE, Box

SIZES = [(128, 192), (136, 200), (120, 168)]  # the last ones become grids with a rest


def person(left, right, width=64, height=96):
    image = torch.zeros(1, height, width, 3)
    for part, top, bottom in ((23, 5, 25), (2, 25, 60), (7, 60, 95)):
        image[0, top:bottom, left:right, 2] = part / 255
    return image


def people(width, height, **options):
    """Two who stand so near to each other that a token of the coarsest layer shows both."""
    poses = {"pose0": person(26, 58), "pose1": person(0, 26)}
    iuv, first, second, *_ = run("Parts2WholePeople", poses=poses, width=width, height=height, **options)
    return iuv, first, second


def of_each(appearance):
    return (appearance._replace(references=appearance.references[i:i + 1]) for i in (0, 1))


def dressed(model, appearance, first, second, mask_mode="zero", region_mode="centre"):
    one, other = of_each(appearance)
    model = apply_parts(model, one, mask_mode="drop", region=first, region_mode=region_mode)
    return apply_parts(model, other, mask_mode=mask_mode, region=second, region_mode=region_mode)


class Recorded:
    """For each layer of each step the grid, and the shares [B, T, 4] of the picture itself, both parts, and what is removed."""

    def __init__(self, monkeypatch):
        self.layers, add = [], Attribution.add_whole

        def add_whole(attribution, q, k, mask, heads, lengths, removed, grid, conditionings):
            own = k.shape[1] - sum(lengths) - removed
            self.layers.append((grid, attention_shares(q, k, mask, heads, [own, *lengths, removed])))
            add(attribution, q, k, mask, heads, lengths, removed, grid, conditionings)

        monkeypatch.setattr(Attribution, "add_whole", add_whole)


def centres(region, latent, grid):
    """Which tokens of a layer lie in a region by their centre: [T]"""
    return F.interpolate(F.interpolate(region[None], latent, mode="nearest-exact"), grid, mode="nearest-exact").flatten() > 0


@pytest.mark.parametrize("soft", [0.0, 0.1])
@pytest.mark.parametrize("width, height", SIZES)
def test_ones_place_gives_the_others_parts_a_share_of_exactly_zero(
    checkpoint, appearance, draw, monkeypatch, width, height, soft
):
    """In all layers and steps; what is removed is the second's only, whose masks leave something out."""
    iuv, first, second = people(width, height, soft=soft)
    recorded, steps, latent = Recorded(monkeypatch), 3, (height // 8, width // 8)
    model = dressed(apply_pose(checkpoint.model, checkpoint.pose_guider, iuv), appearance, first, second)
    model, _ = run("Parts2WholeRecordAttribution", model=model)
    draw(model, steps=steps, latent=noise(*latent))
    assert len(recorded.layers) == 16 * steps and len({grid for grid, _ in recorded.layers}) == 4
    for grid, shares in recorded.layers:
        in_first, in_second = (centres(region, latent, grid) for region in (first, second))
        assert in_first.any() and in_second.any() and not (in_first & in_second).any()
        _, of_first, of_second, removed = shares[0].unbind(-1)
        assert (of_second[~in_second] == 0).all() and (removed[~in_second] == 0).all() and (of_first[~in_first] == 0).all()
        assert (of_first[in_first] > 0).all() and (of_second[in_second] > 0).all() and (removed[in_second] > 0).all()


@pytest.mark.parametrize("region_mode, said", [("centre", 1), ("area", 0)])
def test_a_region_that_no_token_has_at_its_centre_is_told(checkpoint, appearance, draw, caplog, region_mode, said):
    column = torch.zeros(1, 192, 128)
    column[..., :3] = 1
    model = apply_parts(checkpoint.model, appearance, region=column, region_mode=region_mode)
    assert (rel(draw(model, steps=1), draw(checkpoint.model, steps=1)) < 1e-5) == bool(said)
    assert caplog.text.count("lies between the centres of all tokens of a latent of 16x24, so its parts do nothing") == said


def test_by_area_they_would_meet_in_the_coarser_layers(checkpoint, appearance, draw, monkeypatch):
    """What region_mode centre is for."""
    _, first, second = people(128, 192)
    recorded = Recorded(monkeypatch)
    model, _ = run("Parts2WholeRecordAttribution", model=dressed(checkpoint.model, appearance, first, second, region_mode="area"))
    draw(model, steps=1)
    both = [grid for grid, shares in recorded.layers if ((shares[..., 1] > 0) & (shares[..., 2] > 0)).any()]
    assert both and min(grid[0] for grid in both) < 24


def test_without_parts_of_the_second_the_picture_is_that_of_one_bit_for_bit(checkpoint, appearance, draw):
    iuv, first, second = people(128, 192)
    one, other = of_each(appearance)
    model = apply_pose(checkpoint.model, checkpoint.pose_guider, iuv)
    alone = apply_parts(model, one, region=first, region_mode="centre")
    for nothing in ({"strength": 0.0, "region": second}, {"region": torch.zeros_like(second)}):
        assert torch.equal(draw(apply_parts(alone, other, region_mode="centre", **nothing)), draw(alone))


def test_a_frame_of_one_person_is_as_without_this_node(checkpoint, appearance, draw):
    pose = person(10, 50)
    iuv, region, *_ = run("Parts2WholePeople", poses={"pose0": pose}, width=64, height=96)
    assert torch.equal(iuv, pose)
    model, expected = (apply_pose(checkpoint.model, checkpoint.pose_guider, image) for image in (iuv, pose))
    assert rel(
        draw(apply_parts(model, appearance, region=region, region_mode="centre")), draw(apply_parts(expected, appearance))
    ) < 1e-5


@pytest.mark.parametrize("by", ["mask", "area"])
def test_with_text_for_each(checkpoint, appearance, draw, by):
    """Each person's words and parts are heard."""
    iuv, first, second = people(128, 192)

    def drawn(words="a man in a suit", other="a woman in a dress", parts=(0, 1)):
        model = apply_pose(checkpoint.model, checkpoint.pose_guider, iuv)
        for i, region in zip(parts, (first, second)):
            model = apply_parts(
                model, appearance._replace(references=appearance.references[i:i + 1]), region=region, region_mode="centre"
            )
        conditionings = []
        for prompt, mask, x in ((words, first, 0), (other, second, 64)):
            if by == "mask":
                conditionings += run(
                    "ConditioningSetMask", conditioning=text(checkpoint.clip, prompt), mask=mask, strength=1.0,
                    set_cond_area="default",
                )
            else:
                conditionings += run(
                    "ConditioningSetArea", conditioning=text(checkpoint.clip, prompt), width=64, height=192, x=x, y=0, strength=1.0
                )
        return draw(model, positive=conditionings)

    result = drawn()
    assert torch.isfinite(result).all()
    others = drawn("a dog"), drawn(other="a dog"), drawn(parts=(0, 2)), drawn(parts=(2, 1))
    assert all(rel(other, result) > 1e-3 for other in others)


def test_a_crop_has_its_piece_of_each_region():
    """By centre too, and regions stay apart in it."""
    _, *regions = people(128, 192, soft=0.1)
    box = Box(0.25, 0.125, 0.75, 0.625)
    pieces = [region_of(region[0], box, (12, 8), True) for region in regions]
    assert all(torch.equal(piece[0, 0], region[0, 28:124:8, 36:100:8]) for piece, region in zip(pieces, regions, strict=True))
    assert (pieces[0] * pieces[1] == 0).all() and all((piece > 0).any() for piece in pieces)
    for size in ((24, 16), (25, 17), (21, 15)):
        for region in regions:
            assert torch.equal(region_of(region[0], WHOLE, size, True), F.interpolate(region[None], size, mode="nearest-exact"))
