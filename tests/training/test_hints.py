"""What the hints ask of each layer."""

import math

import pytest
import torch

from attention.shared_attention import ReferenceKeys
from training.hints import LOSSES, LayerHints, Readouts, Truth, looking_loss, matching_loss, reference_weights


def test_the_looking_loss_is_smallest_where_the_target_looks_at_its_part():
    """Two tokens, one of which is to look at the one reference."""
    k, keys = torch.zeros(2, 8), torch.tensor([[0.5] * 8])
    regions = torch.tensor([[1.0, 0.0]])
    references = ReferenceKeys(keys, keys, None)
    right, wrong = torch.stack([torch.ones(8), -torch.ones(8)]), torch.stack([-torch.ones(8), torch.ones(8)])
    losses = [
        looking_loss(reference_weights(q, k, references, [1], heads=2), regions).item() for q in (right, torch.zeros(2, 8), wrong)
    ]
    assert losses[0] < losses[1] < losses[2]


def test_the_matching_loss_is_smallest_where_ground_looks_at_ground():
    """Two tokens look at two of a reference's, and a third, that is not the part's, anywhere."""
    shown, amounts, region = torch.tensor([1.0, 0.0]), torch.tensor([0.8, 0.2, 0.5]), torch.tensor([1.0, 1.0, 0.0])
    right = torch.tensor([[0.4, 0.1], [0.1, 0.4], [0.3, 0.3]])
    even = torch.tensor([[0.2, 0.2], [0.1, 0.1], [0.0, 0.0]])
    losses = [matching_loss(weights, shown, amounts, region).item() for weights in (right, even, right.flip(1))]
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert losses[0] == pytest.approx(entropy)
    assert losses[1] == pytest.approx(math.log(2))
    assert losses[2] == pytest.approx(-(0.2 * math.log(0.8) + 0.8 * math.log(0.2)))


class TwoLayers(torch.nn.Module):
    """As much of a U-Net as the readouts look at: 4 wide and 6 wide attention."""

    def __init__(self):
        super().__init__()
        self.config = type("Config", (), {"in_channels": 4, "block_out_channels": (4, 4)})
        self.up_blocks = [torch.nn.Module()]
        self.up_blocks[0].resnets = [type("Resnet", (), {"out_channels": 4})]
        for i, width in enumerate((4, 6)):
            block = torch.nn.Module()
            block.attn1 = torch.nn.Module()
            block.attn1.to_q = torch.nn.Linear(width, width)
            self.add_module(f"block{i}", block)


@pytest.fixture
def readouts():
    """The first layer's, the pose's and the block's tell their tokens' values as they are, the second layer's tell zeros. Three
    kinds of patterns are known besides plain."""
    readouts = Readouts(TwoLayers(), 3, 4, True)
    with torch.no_grad():
        for parameter in readouts.parameters():
            parameter.zero_()
        for heads in (readouts.from_bank, readouts.from_output, readouts.kind_from_bank, readouts.kind_from_output):
            heads["block0_attn1"].weight.copy_(torch.eye(4))
        for heads in (readouts.colours_from_bank, readouts.colours_from_output):
            heads["block0_attn1"].weight[-1, 0] = 1
        readouts.shown["block0_attn1"].weight[0, 0] = 1
        for name in ("pose", "up0"):
            readouts.amounts[name].weight.copy_(torch.eye(4)[:3])
        readouts.amount["up0"].weight[0, 3] = 1
    return readouts


def make_hints(readouts, regions=None, of=((0, 1), ())):
    """Two pictures of 2x3 tokens, of which the first has two references, one on the left with pattern 2, and one on the right that
    has none."""
    generator = torch.Generator().manual_seed(0)
    latents, references = torch.randn(2, 4, 2, 3, generator=generator), torch.randn(2, 4, 2, 3, generator=generator)
    masks = torch.zeros(2, 16, 24)
    masks[0, :, :8] = masks[1, :, 16:] = 1
    if regions is None:
        regions = torch.zeros(2, 2, 3)
        regions[0, :, 0] = regions[1, :, 2] = 1
    amounts = torch.rand(2, 3, 2, 3, generator=generator)
    colours = torch.tensor([[0.5] * 6, [0.5] * 5 + [0.75]])
    shown = torch.rand(2, 2, 3, generator=generator)
    return LayerHints(readouts, Truth(latents, references, masks, regions, shown, amounts, torch.tensor([2, -1]), colours, of))


def tokens(latents):
    return latents.flatten(2).transpose(1, 2).clone()


def values(losses):
    return [loss.item() for loss in losses]


def test_each_layer_is_read_where_the_parts_are(readouts):
    hints = make_hints(readouts)
    bank, output = tokens(hints.truth.reference_latents), tokens(hints.truth.latents).repeat_interleave(2, 0)
    # Elsewhere, in other noises and in pictures without references anything may be.
    bank[0, 1], bank[1, 0] = 9, 9
    output[0], output[1, 1], output[2:] = 9, 9, 9
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    assert values(hints.losses["reading"]) == pytest.approx([0, 0], abs=1e-6)
    bank[0, 0] += 1
    output[1, 0] += 2
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    # One of the four tokens that count is off by 1, or by 2.
    assert values(hints.losses["reading"][2:]) == pytest.approx([1 / 4, 4 / 4])


def test_layers_of_other_widths_and_grids_are_read_too(readouts):
    hints = make_hints(readouts)
    hints.read_layer("block1.attn1", torch.randn(2, 2, 6), torch.randn(4, 2, 6), (2, 1))
    # Each of the two tokens is a row, of whose three places a third counts.
    expected = [(latents.mean(-1) ** 2).mean().item() for latents in (hints.truth.reference_latents, hints.truth.latents[:1])]
    assert values(hints.losses["reading"]) == pytest.approx(expected)


def test_each_reference_is_looked_at_in_its_own_region(readouts):
    """The target looks at the first reference on the left and at the second on the right, and elsewhere at itself."""
    q = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]] * 2)[:, [0, 1, 2]].repeat_interleave(2, 1) * 9
    own, keys = torch.eye(3)[[2] * 6].repeat_interleave(2, 1), torch.eye(3)[[0, 0, 1]].repeat_interleave(2, 1)
    right = torch.zeros(2, 2, 3)
    right[0, :, 0] = right[1, :, 2] = 1
    losses = []
    for regions in (right, right.flip(0), right.roll(1, -1)):
        hints = make_hints(readouts, regions)
        hints.truth = hints.truth._replace(kinds=torch.tensor([-1, -1]))
        hints.look(q, own, ReferenceKeys(keys, keys, None), [2, 1], (0, 1), (2, 3), heads=1)
        losses += values(hints.losses["looking"])
        assert not hints.losses["matching"]
    assert losses[0] < min(losses[1:])


def test_what_is_computed_again_is_not_kept(readouts):
    hints = make_hints(readouts)
    hints.read_layer("block1.attn1", torch.randn(2, 6, 6), torch.randn(4, 6, 6), (2, 3))
    keys = torch.randn(8, 4)
    hints.look(torch.randn(6, 4), torch.randn(6, 4), ReferenceKeys(keys, keys, None), [4, 4], (0, 1), (2, 3), heads=2)
    hints.read_block("up0", torch.randn(4, 4, 2, 3))
    means = hints.close()
    assert means == {name: torch.stack(hints.losses[name]).mean() for name in LOSSES}
    hints.read_layer("block1.attn1", torch.randn(2, 6, 6), torch.randn(4, 6, 6), (2, 3))
    hints.read_block("up0", torch.randn(4, 4, 2, 3))
    assert [len(hints.losses[name]) for name in LOSSES] == [1, 2, 2, 2, 3, 1]


def test_kinds_of_patterns_are_named_where_their_parts_are(readouts):
    """Values of 99 for the right kind: where the part is, in the picture that has it, and for the reference that has one."""
    bank, output = torch.zeros(2, 6, 4), torch.zeros(4, 6, 4)
    bank[0, [0, 3], 2] = output[1, [0, 3], 2] = 99
    hints = make_hints(readouts)
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    assert values(hints.losses["naming"]) == pytest.approx([0, 0], abs=1e-6)
    hints.read_layer("block0.attn1", bank.flip(0), output.flip(1), (2, 3))
    assert values(hints.losses["naming"][2:]) == pytest.approx([math.log(4)] * 2)
    # A token of two tells it, as strongly as both must.
    bank[0, 0, 2] = output[1, 0, 2] = 0
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    assert values(hints.losses["naming"][4:]) == pytest.approx([0, math.log(4) / 2], abs=1e-6)


def test_colours_are_read_where_their_parts_are(readouts):
    """The second part's last value is 1 above the middle, by contrast: it is told by the first channel."""
    bank, output = torch.zeros(2, 6, 4), torch.zeros(4, 6, 4)
    bank[1, [2, 5], 0] = output[1, [2, 5], 0] = 1
    hints = make_hints(readouts)
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    assert values(hints.losses["colouring"]) == pytest.approx([0, 0], abs=1e-6)
    hints.read_layer("block0.attn1", 0 * bank, 0 * output, (2, 3))
    # One of two parts, and of six values.
    assert values(hints.losses["colouring"][2:]) == pytest.approx([1 / 12, 1 / 12])


def test_each_part_is_told_in_its_own_picture(readouts):
    """The first reference is the second picture's, with pattern 2, and the other way round."""
    hints = make_hints(readouts, of=((1,), (0,)))
    bank, output = torch.zeros(2, 6, 4), torch.zeros(4, 6, 4)
    bank[0, [0, 3], 2] = output[3, [0, 3], 2] = 99
    bank[1, [2, 5], 0] = output[1, [2, 5], 0] = 1
    hints.read_layer("block0.attn1", bank, output, (2, 3))
    assert values(hints.losses["naming"]) == pytest.approx([0, 0], abs=1e-6)
    assert values(hints.losses["colouring"]) == pytest.approx([0, 0], abs=1e-6)


def test_half_precision_is_read_too(readouts):
    hints = make_hints(readouts)
    with torch.autocast("cpu", torch.bfloat16):
        hints.read_layer("block0.attn1", torch.randn(2, 6, 4).bfloat16(), torch.randn(4, 6, 4).bfloat16(), (2, 3))
        hints.read_block("up0", torch.randn(4, 4, 2, 3).bfloat16())
        means = hints.close()
    assert all(means[name].isfinite() and means[name].dtype == torch.float32 for name in ("reading", "naming", "colouring"))


@pytest.mark.parametrize("name, noises", [("pose", 1), ("up0", 2)])
def test_patterns_are_read_where_there_is_cloth(readouts, name, noises):
    """Of the first picture: the second has none, and the part on the right is not of cloth."""
    hints = make_hints(readouts)
    output = torch.full((2 * noises, 4, 2, 3), 9.0)
    output[noises - 1, :3, :, 0] = hints.truth.amounts[0, :, :, 0]
    # What the part shows is what its kind, the second, would show.
    output[noises - 1, 3, :, 0] = hints.truth.amounts[0, 1, :, 0]
    hints.read_block(name, output)
    losses = 1 if name == "pose" else 2
    assert values(hints.losses["weaving"]) == pytest.approx([0] * losses, abs=1e-6)
    output[noises - 1, 0, 1, 0] += 3
    output[noises - 1, 3, 1, 0] += 1
    hints.read_block(name, output)
    # One of three kinds, at one of two places.
    assert values(hints.losses["weaving"][losses:]) == pytest.approx([9 / 3 / 2, 1 / 2][:losses])


def test_plain_cloth_shows_no_pattern(readouts):
    hints = make_hints(readouts)
    hints.truth = hints.truth._replace(kinds=torch.tensor([0, -1]))
    output = torch.zeros(2, 4, 2, 3)
    output[0, :3, :, 0] = hints.truth.amounts[0, :, :, 0]
    hints.read_block("up0", output)
    assert values(hints.losses["weaving"]) == pytest.approx([0, 0], abs=1e-6)


def test_what_references_show_is_read_from_their_features(readouts):
    """By the first channel, of the first reference, in its mask."""
    hints = make_hints(readouts)
    bank = torch.full((2, 6, 4), 9.0)
    bank[0, [0, 3], 0] = hints.truth.shown[0, :, 0]
    hints.read_layer("block0.attn1", bank, torch.randn(4, 6, 4), (2, 3))
    assert values(hints.losses["weaving"]) == pytest.approx([0], abs=1e-6)
    bank[0, 3, 0] += 1
    hints.read_layer("block0.attn1", bank, torch.randn(4, 6, 4), (2, 3))
    assert values(hints.losses["weaving"][1:]) == pytest.approx([1 / 2])


def test_patterns_are_matched_where_their_parts_are(readouts):
    """The first reference shows its pattern in its upper row, as its kind would in the target's: upper looks at upper."""
    hints = make_hints(readouts)
    upper = torch.tensor([[1.0] * 3, [0.0] * 3])
    amounts = torch.rand(2, 3, 2, 3)
    amounts[0, 1] = upper
    hints.truth = hints.truth._replace(shown=torch.stack([upper, 1 - upper]), amounts=amounts)
    # The mask, grown by a token, lets two columns through.
    keys = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1], [0, 0]]) * 20
    q = torch.tensor([[1.0, 0]] * 3 + [[0.0, 1]] * 3)
    for queries in (q, q.flip(0)):
        hints.look(queries, 0 * q, ReferenceKeys(keys, keys, None), [4, 1], (0, 1), (2, 3), heads=1)
    right, wrong = values(hints.losses["matching"])
    assert right < 0.01 and wrong > 5
    # Hidden in the target, it is not asked for.
    hints.truth = hints.truth._replace(regions=torch.zeros(2, 2, 3))
    hints.look(q, 0 * q, ReferenceKeys(keys, keys, None), [4, 1], (0, 1), (2, 3), heads=1)
    assert len(hints.losses["matching"]) == 2


def test_without_cloth_or_kinds_nothing_is_asked_of_patterns(readouts):
    for each, kinds in ((readouts, [-1, -1]), (Readouts(TwoLayers()), [2, -1])):
        hints = make_hints(each)
        hints.truth = hints.truth._replace(kinds=torch.tensor(kinds))
        hints.read_layer("block0.attn1", torch.randn(2, 6, 4), torch.randn(4, 6, 4), (2, 3))
        hints.read_block("up0", torch.randn(4, 4, 2, 3))
        assert not hints.losses["naming"] and not hints.losses["weaving"]
        assert hints.close()["naming"] == hints.close()["weaving"] == 0


def test_half_precision_does_not_overflow():
    q = torch.full((2, 8), 300.0)
    with torch.autocast("cpu", torch.float16):
        weights = reference_weights(q, q, ReferenceKeys(q[:1], q[:1], None), [1], heads=2)
        losses = (
            looking_loss(weights, torch.tensor([[1.0, 0.0]])),
            matching_loss(weights[0], torch.rand(1), torch.rand(2), torch.rand(2)),
        )
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses)
