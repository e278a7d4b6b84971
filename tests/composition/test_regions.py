"""References that act in a region of the target alone."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from harness.windows import CountingWindows
from harness.workbench import apply_parts, apply_pose, noise, rel, run, text


def left(height=192, width=128):
    region = torch.zeros(1, height, width)
    region[:, :, :width // 2] = 1
    return region


def regions_seen(model, draw, **options):
    """The regions of the first call of the U-Net, as its attention gets them."""
    seen = []

    def keep(executor, *args, **kwargs):
        seen.append([each.values for each in args[5]["patches_replace"]["attn1"]["middle", 0, 0].regions])
        return executor(*args, **kwargs)

    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, keep)
    draw(model, steps=1, **options)
    return seen[0]


def test_everywhere_is_as_without_a_region(checkpoint, appearance, draw):
    expected = draw(apply_parts(checkpoint.model, appearance))
    assert rel(draw(apply_parts(checkpoint.model, appearance, region=torch.ones(1, 8, 8))), expected) < 1e-5


def test_nowhere_equals_the_unpatched_model_bit_for_bit(checkpoint, appearance, draw):
    nowhere = apply_parts(checkpoint.model, appearance, region=torch.zeros(1, 8, 8))
    assert torch.equal(draw(nowhere), draw(checkpoint.model))


def test_outside_the_region_the_first_attention_is_the_unpatched_one(checkpoint, appearance, draw):
    outputs = []

    def keep(n, options):
        if not outputs:
            outputs.append(n.clone())
        return n

    def first_attention(model):
        outputs.clear()
        model = model.clone()
        model.set_model_attn1_output_patch(keep)
        draw(model, steps=1, cfg=1.0)
        return outputs[0].unflatten(1, (24, 16))

    plain, everywhere = first_attention(checkpoint.model), first_attention(apply_parts(checkpoint.model, appearance))
    here = first_attention(apply_parts(checkpoint.model, appearance, region=left()))
    assert rel(here[:, :, 8:], plain[:, :, 8:]) < 1e-5 and rel(here[:, :, :8], everywhere[:, :, :8]) < 1e-5
    assert rel(everywhere, plain) > 1e-2


def test_each_of_several_parts_has_its_own(checkpoint, appearance, draw):
    """A part on the left and one on the right is neither what both do everywhere, nor one alone."""
    first, second = (appearance._replace(references=appearance.references[i:i + 1]) for i in (0, 1))
    both = apply_parts(apply_parts(checkpoint.model, first, region=left()), second, region=1 - left())
    swapped = apply_parts(apply_parts(checkpoint.model, second, region=1 - left()), first, region=left())
    result = draw(both)
    assert rel(draw(swapped), result) < 1e-4, "the order does not matter"
    others = [
        apply_parts(apply_parts(checkpoint.model, first), second), apply_parts(checkpoint.model, first, region=left()),
        apply_parts(apply_parts(checkpoint.model, first, region=1 - left()), second, region=left()),
    ]
    assert all(rel(draw(other), result) > 1e-3 for other in others)


def test_a_soft_region_weakens(checkpoint, appearance, draw):
    """A region of one value everywhere is a strength."""
    expected = draw(apply_parts(checkpoint.model, appearance, strength=0.3))
    assert rel(draw(apply_parts(checkpoint.model, appearance, region=torch.full((1, 8, 8), 0.3))), expected) < 1e-5


def test_each_latent_of_a_batch_has_its_own(checkpoint, appearance, draw):
    regions = torch.cat([left(), 1 - left()])
    batch = noise(batch=3)
    together = draw(apply_parts(checkpoint.model, appearance, region=regions), latent=batch)
    for i in range(3):
        model = apply_parts(checkpoint.model, appearance, region=regions[i % 2:i % 2 + 1])  # fewer than latents: in turn
        alone = draw(model, latent={"samples": batch["samples"][i:i + 1]})
        assert rel(together[i:i + 1], alone) < 1e-5


def test_an_area_sees_its_window_of_the_region(checkpoint, appearance, draw):
    window = run(
        "ConditioningSetArea", conditioning=text(checkpoint.clip, "a person"), width=64, height=96, x=32, y=64, strength=1.0
    )
    model = apply_parts(checkpoint.model, appearance, region=left())
    (region,) = regions_seen(model, draw, positive=window, cfg=1.0)
    expected = torch.zeros(1, 1, 12, 8)
    expected[..., :4] = 1
    assert torch.equal(region, expected)


def test_with_pose_and_another_nodes_replacement(checkpoint, appearance, draw):
    """An earlier replacement gets the wider heads too; here it changes nothing."""
    from comfy.ldm.modules.attention import optimized_attention

    def same(q, k, v, options):
        return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"])

    model = apply_pose(apply_parts(checkpoint.model, appearance, region=left()), checkpoint.pose_guider)
    replaced = model.clone()
    for number in (1, 2, 4, 5, 7, 8):
        replaced.set_model_attn1_replace(same, "input", number)
    assert rel(draw(replaced), draw(model)) < 1e-6


@pytest.mark.parametrize("node, options", [
    ("HyperTile", {"tile_size": 64, "swap_size": 2, "max_depth": 0, "scale_depth": False}), ("TomePatchModel", {"ratio": 0.3}),
])
def test_nodes_that_rearrange_tokens_are_refused_with_words(checkpoint, appearance, draw, node, options):
    model = apply_parts(run(node, model=checkpoint.model, **options), appearance, region=left())
    with pytest.raises(ValueError, match="remove the region of Apply Parts2Whole, or that node"):
        draw(model)


def test_a_region_that_is_not_finite_is_refused(checkpoint, appearance):
    with pytest.raises(ValueError, match="The region holds NaN"):
        apply_parts(checkpoint.model, appearance, region=torch.full((1, 8, 8), float("nan")))


def test_context_windows_cut_the_region(checkpoint, appearance, draw):
    upper = torch.zeros(1, 192, 128)
    upper[:, :96] = 1
    model = apply_parts(checkpoint.model, appearance, region=upper)
    model.model_options["context_handler"] = CountingWindows(12, dim=2)
    (region,) = regions_seen(model, draw, cfg=1.0)
    assert region.shape == (1, 1, 12, 16) and region.eq(1).all(), "the first window is the upper half"


def test_a_region_that_is_empty_says_so(checkpoint, appearance, caplog):
    apply_parts(checkpoint.model, appearance, region=torch.zeros(1, 8, 8))
    assert "the region is zero everywhere, so these parts do nothing: face, shoes, upper body clothes" in caplog.text
