"""Mending masks."""

import random
import time

import comfy.model_management
import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from harness.workbench import run
from parts2whole.pictures import sliding
from parts2whole.pictures.refine_mask import EDGE, STEEP
from parts2whole.pictures.sliding import STRIP

NOTHING = {"largest": False, "fill_holes": False, "grow": 0, "edges": 0, "feather": 0}


def refine(mask, **options):
    return run("Parts2WholeRefineMask", mask=mask, **{**NOTHING, **options})


def square(begin=20, end=40, size=60):
    mask = torch.zeros(1, size, size)
    mask[:, begin:end, begin:end] = 1
    return mask


def test_with_everything_off_a_mask_stays_as_it_is():
    mask = torch.rand(3, 20, 30)
    assert torch.equal(refine(mask), mask)
    assert torch.equal(refine(mask[0]), mask[:1])


def test_the_largest_piece():
    mask = square() * 0.9
    mask[0, 0:5, 0:5] = 1
    mask[0, 40, 40] = 0.3  # soft, and touches the square at a corner
    assert torch.equal(refine(mask, largest=True)[0, 20:], mask[0, 20:]) and not refine(mask, largest=True)[0, :10].any()
    assert torch.equal(refine(torch.zeros(1, 8, 8), largest=True), torch.zeros(1, 8, 8))


def test_holes():
    mask = square()
    mask[0, 28:32, 28:32] = 0
    mask[0, 20:23, 30] = 0  # a bay, not a hole
    filled = refine(mask, fill_holes=True)
    assert filled[0, 28:32, 28:32].eq(1).all() and filled[0, 20:23, 30].eq(0).all()


@pytest.mark.parametrize("grow", [5, -5])
def test_grow(grow):
    grown = refine(square(), grow=grow)
    assert grown[0, 30].nonzero().flatten().tolist() == list(range(20 - grow, 40 + grow))
    assert grown[0, :, 30].nonzero().flatten().tolist() == list(range(20 - grow, 40 + grow))
    corner = grown[0, 20 - grow, 20 - grow] if grow > 0 else 1 - grown[0, 24, 24]
    assert corner == (0 if grow > 0 else 1), "corners become round when it grows, and the other way round"


def test_edges_of_the_picture():
    """The mask is three pixels short of the edge on one side and three beyond it on the other."""
    image = square()[..., None].expand(-1, -1, -1, 3)
    mask = torch.zeros(1, 60, 60)
    mask[:, 20:40, 23:43] = 1
    better = refine(mask, image=image, edges=8)
    assert (better - square()).abs().mean() < 0.6 * (mask - square()).abs().mean()


def test_a_picture_in_half_precision():
    """As the host loads them with --fp16-intermediates. These values are exact in both."""
    mask, image = square(), square(22, 42)[..., None].expand(-1, -1, -1, 3)
    assert torch.equal(refine(mask.half(), image=image.half(), edges=4), refine(mask, image=image, edges=4))


def test_feather():
    soft = refine(square(), feather=6)
    assert soft[0, 30, 30] > 0.99 and 0.3 < soft[0, 30, 20] < 0.7 and soft[0, 30, 10] < 0.01
    assert abs(float(soft.sum()) - 400) < 1


def test_what_is_missing_or_does_not_fit():
    with pytest.raises(ValueError, match="needs the picture to find its edges"):
        refine(square(), edges=3)
    with pytest.raises(ValueError, match="1 masks and 2 pictures"):
        refine(square(), image=torch.rand(2, 60, 60, 3), edges=3)


def grown_step_by_step(mask, grow):
    """A square and a cross in turn, one pixel at a time."""
    sign = 1 if grow > 0 else -1
    for step in range(abs(grow)):
        kernels = ((3, 1), (1, 3)) if step % 2 else ((3, 3),)
        grown = [F.max_pool2d(sign * mask[:, None], kernel, 1, (kernel[0] // 2, kernel[1] // 2))[:, 0] for kernel in kernels]
        mask = sign * torch.stack(grown).amax(0)
    return mask


def fitted_square_by_square(mask, image, radius):
    """The guided filter with every square summed up by itself."""

    def mean(x):
        return F.avg_pool2d(x, 2 * radius + 1, 1, radius, count_include_pad=False)

    guide = F.interpolate(image.double().mean(-1)[:, None], size=mask.shape[1:], mode="bilinear", antialias=True)
    mask = mask.double()[:, None]
    slope = (mean(guide * mask) - mean(guide) * mean(mask)) / (mean(guide * guide) - mean(guide) ** 2 + EDGE)
    fitted = mean(slope) * guide + mean(mean(mask) - slope * mean(guide))
    return ((fitted[:, 0] - 0.5) * STEEP + 0.5).clamp(0, 1).float()


def random_masks(dice):
    shape = dice.choice([1, 3]), dice.randint(1, 70), dice.randint(1, 70)
    noise = torch.rand(shape)
    blobs = F.interpolate(torch.rand(shape[0], 1, 4, 5), size=shape[1:], mode="bilinear")[:, 0]
    return dice.choice([noise, noise.gt(0.8).float(), blobs.sub(0.5).mul(8).add(0.5).clamp(0, 1)])


@pytest.mark.parametrize("seed", range(12))
def test_growing_at_once_is_growing_step_by_step(seed):
    dice = random.Random(seed)
    mask = random_masks(dice)
    for grow in (dice.randint(1, 9), dice.randint(10, 100), -dice.randint(1, 9), -dice.randint(10, 100)):
        assert torch.equal(refine(mask, grow=grow), grown_step_by_step(mask, grow))


@pytest.mark.parametrize("seed", range(12))
def test_running_means_are_those_of_every_square(seed):
    dice = random.Random(seed)
    mask = random_masks(dice)
    image = torch.rand(dice.choice([1, len(mask)]), dice.randint(2, 80), dice.randint(2, 80), 3)
    for radius in (1, dice.randint(2, 20), 40):
        if radius <= min(mask.shape[1:]):
            assert torch.allclose(refine(mask, image=image, edges=radius), fitted_square_by_square(mask, image, radius), atol=2e-5)


@pytest.mark.parametrize("option, small, large", [("grow", 8, 512), ("grow", -8, -512), ("edges", 4, 256)])
def test_the_cost_does_not_grow_with_the_radius(option, small, large):
    mask, image = torch.rand(1, 512, 512), torch.rand(1, 512, 512, 3)

    def cost(radius):
        begin = time.process_time()
        refine(mask, image=image, **{option: radius})
        return time.process_time() - begin

    cost(small)
    assert cost(large) < 10 * cost(small) + 0.2


@pytest.fixture
def progress():
    """What the progress bar is told: pairs of how far, and of how much."""
    told = []
    comfy.utils.set_progress_bar_global_hook(lambda value, total, *_, **__: told.append((value, total)))
    yield told
    comfy.utils.set_progress_bar_global_hook(None)
    comfy.model_management.interrupt_current_processing(False)


ALL = {"grow": 3, "edges": 5, "feather": 4, "largest": True, "fill_holes": True}


def test_it_says_how_far_it_has_come(progress):
    mask, image = torch.rand(2, 700, 700), torch.rand(1, 700, 700, 3)
    refine(mask, image=image, **ALL)
    assert progress[-1][0] == progress[-1][1] and [value for value, _ in progress] == sorted(value for value, _ in progress)


@pytest.mark.parametrize("option", ["grow", "edges", "feather"])
def test_it_ends_after_an_interrupt(progress, option):
    comfy.utils.set_progress_bar_global_hook(lambda *_, **__: comfy.model_management.interrupt_current_processing())
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        refine(torch.rand(1, 256, 256), image=torch.rand(1, 256, 256, 3), **{option: 20})


@pytest.mark.parametrize("slide", [sliding.largest, sliding.mean, sliding.blurred])
def test_every_strip_can_be_the_last(slide):
    """Of forty masks, not one more strip is worked on after an interrupt."""
    told = []

    def interrupt(pixels):
        told.append(pixels)
        comfy.model_management.interrupt_current_processing(len(told) == 3)

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        slide(torch.rand(40, 256, 256), 20, interrupt)
    assert len(told) == 3 and max(told) <= STRIP


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad):
    mask, image = square(), torch.rand(1, 60, 60, 3)
    image[0, 3, 3, 1] = bad
    with pytest.raises(ValueError, match="The picture holds NaN or infinite"):
        refine(mask, image=image, edges=3)
    mask[0, 3, 3] = bad
    with pytest.raises(ValueError, match="The mask holds NaN or infinite"):
        refine(mask, feather=3)
