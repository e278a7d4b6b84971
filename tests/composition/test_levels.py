"""Strength by the depth of the U-Net."""

import pytest
import torch
from harness.workbench import apply_parts, rel, run
from parts2whole.attention.patch.host.unet import block_depths


def levels(preset="all", **custom):
    return run("Parts2WholeLevels", preset=preset, **custom)


def test_the_depths_of_sd15(checkpoint):
    by_block = block_depths(checkpoint.model.model.diffusion_model)
    found = {(address.name, address.number): depth for address, depth in by_block.items()}
    assert found == {
        ("input", 1): 0, ("input", 2): 0, ("input", 4): 1, ("input", 5): 1, ("input", 7): 2, ("input", 8): 2, ("middle", 0): 3,
        ("output", 3): 2, ("output", 4): 2, ("output", 5): 2, ("output", 6): 1, ("output", 7): 1, ("output", 8): 1,
        ("output", 9): 0, ("output", 10): 0, ("output", 11): 0,
    }


def test_all_is_as_without_and_one_factor_is_a_strength(checkpoint, appearance, draw):
    assert torch.equal(
        draw(apply_parts(checkpoint.model, appearance, levels=levels())), draw(apply_parts(checkpoint.model, appearance))
    )
    halved = draw(apply_parts(checkpoint.model, appearance, levels=levels(custom="0.5")))
    assert torch.equal(halved, draw(apply_parts(checkpoint.model, appearance, strength=0.5)))
    finest, spelled_out = (
        draw(apply_parts(checkpoint.model, appearance, levels=levels(custom=custom))) for custom in ("1, 0", "1, 0, 0, 0")
    )
    assert torch.equal(finest, spelled_out), "the last one holds for all greater depths"


def test_zero_everywhere_equals_the_unpatched_model_bit_for_bit(checkpoint, appearance, draw):
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance, levels=levels(custom="0, 0"))), draw(checkpoint.model))


def test_a_depth_of_factor_zero_is_left_alone(checkpoint, appearance, draw):
    """The first attention of the U-Net is at depth 0."""
    def first_attention(model):
        outputs = []
        model = model.clone()
        model.set_model_attn1_output_patch(lambda n, options: outputs.append(n.clone()) or n)
        draw(model, steps=1, cfg=1.0)
        return outputs[0]

    plain, parts = first_attention(checkpoint.model), first_attention(apply_parts(checkpoint.model, appearance))
    without = first_attention(apply_parts(checkpoint.model, appearance, levels=levels(custom="0, 1")))
    with_it = first_attention(apply_parts(checkpoint.model, appearance, levels=levels(custom="1, 0")))
    assert rel(without, plain) < 1e-6 and torch.equal(with_it, parts) and rel(parts, plain) > 1e-2


def test_presets_differ_and_go_with_regions_and_attribution(checkpoint, appearance, draw):
    region = torch.zeros(1, 8, 8)
    region[:, :4] = 1
    results = []
    for preset in ("all", "structure", "texture"):
        model = apply_parts(checkpoint.model, appearance, levels=levels(preset), region=region)
        model, attribution = run("Parts2WholeRecordAttribution", model=model)
        results.append(draw(model))
        maps = attribution.maps(results[-1])
        assert maps.shape[1] == 5 and (maps.sum(1) - 1).abs().max() < 1e-5
    assert all(rel(a, b) > 1e-4 for i, a in enumerate(results) for b in results[:i])


@pytest.mark.parametrize("custom", ["1, x", "1;2", "-1", "11", ","])
def test_what_are_no_factors(custom):
    with pytest.raises(ValueError, match="expected numbers in 0..10 with commas between"):
        levels(custom=custom)
