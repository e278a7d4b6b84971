"""What Record Attribution gathers, and that it leaves the picture alone."""

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from harness.windows import CountingWindows
from harness.workbench import apply_parts, noise, rel, run, text
from parts2whole.attention.attention_shares import attention_shares


def recorded(model, draw, **options):
    model, attribution = run("Parts2WholeRecordAttribution", model=model)
    latents = draw(model, **options)
    return attribution, latents, attribution.maps(latents)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("length", [5, 300])
def test_shares_are_those_of_the_softmax(masked, length, monkeypatch):
    from parts2whole.attention import attention_shares as shares_file

    monkeypatch.setattr(shares_file, "MOST_LOGITS", 5000)  # several groups of queries
    q, k = torch.randn(2, length, 12), torch.randn(2, 17, 12)
    mask = torch.randn(1, 1, 17) if masked else None
    shares = attention_shares(q, k, mask, 3, [4, 0, 13])
    logits = torch.einsum("bthc,bshc->bhts", q.unflatten(-1, (3, 4)), k.unflatten(-1, (3, 4))) / 2
    exponents = (logits + (mask[:, None] if masked else 0)).exp()
    expected = torch.stack([exponents[..., :4].sum(-1), torch.zeros(2, 3, length), exponents[..., 4:].sum(-1)], -1)
    expected = (expected / expected.sum(-1, keepdim=True)).mean(1)
    assert rel(shares, expected) < 1e-5


def test_the_picture_is_the_same_bit_for_bit(checkpoint, everything, draw):
    model = everything(checkpoint.model)
    assert torch.equal(recorded(model, draw)[1], draw(model))


def test_shares_add_up_and_name_the_parts(checkpoint, appearance, draw):
    attribution, _, maps = recorded(apply_parts(checkpoint.model, appearance), draw, steps=3)
    assert attribution.names == ("the picture itself", "face", "upper body clothes", "shoes", "outside the masks")
    assert maps.shape == (1, 5, 24, 16) and (maps.sum(1) - 1).abs().max() < 1e-5 and (maps > 0).all()
    assert len(attribution.by_step) == 3 and list(attribution.by_step) == sorted(attribution.by_step, reverse=True)
    assert all(abs(float(shares.sum()) - 1) < 1e-5 for shares in attribution.by_step.values())


def test_what_takes_no_part_has_no_share(checkpoint, appearance, draw):
    first, second = (appearance._replace(references=appearance.references[i:i + 1]) for i in (0, 1))
    region = torch.zeros(1, 24, 16)
    region[:, :, :8] = 1
    model = apply_parts(apply_parts(checkpoint.model, first, region=region), second, mask_mode="drop", end_percent=0.5)
    attribution, _, maps = recorded(model, draw, steps=4)
    itself, in_region, early, removed = maps[0]
    assert in_region[:, 12:].max() < 1e-6 < in_region[:, :4].min()
    assert removed[:, 12:].max() < 1e-6, "what is removed of a part with a region is in the region too"
    by_step = list(attribution.by_step.values())
    assert by_step[0][2] > 0 and by_step[-1][2] == 0


def test_a_broken_run_leaves_nothing(checkpoint, appearance, draw):
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    latents = draw(model)
    assert len(attribution.by_step) == 2
    broken = model.clone()

    def breaks(apply_model, args):
        if attribution.by_step:
            raise InterruptProcessingException
        return apply_model(args["input"], args["timestep"], **args["c"])

    broken.set_model_unet_function_wrapper(breaks)
    with pytest.raises(InterruptProcessingException):
        draw(broken, steps=3)
    assert not attribution.names and not attribution.by_step
    with pytest.raises(ValueError, match="No attention was recorded"):
        attribution.maps(latents)


def test_the_strength_shows(checkpoint, appearance, draw):
    weak, strong = (recorded(apply_parts(checkpoint.model, appearance, strength=s), draw)[2][0, 1:4].mean() for s in (0.3, 3.0))
    assert strong > 2 * weak


def test_a_batch_and_each_alone(checkpoint, appearance, draw):
    model, batch = apply_parts(checkpoint.model, appearance), noise(batch=2)
    together = recorded(model, draw, latent=batch)[2]
    for i in range(2):
        alone = recorded(model, draw, latent={"samples": batch["samples"][i:i + 1]})[2]
        assert rel(together[i:i + 1], alone) < 1e-5


def test_steps_count_alike_whatever_conditionings_act_in_them(checkpoint, appearance, draw):
    late = run("ConditioningSetTimestepRange", conditioning=text(checkpoint.clip, "a portrait"), start=0.5, end=1.0)
    positive = run("ConditioningCombine", conditioning_1=text(checkpoint.clip, "a person"), conditioning_2=late)
    attribution, _, maps = recorded(apply_parts(checkpoint.model, appearance), draw, steps=4, positive=positive)
    assert sorted({step.count for step in attribution._by_sigma.values()}) == [16, 32]
    assert rel(maps.mean((0, 2, 3)), torch.stack(list(attribution.by_step.values())).mean(0)) < 1e-5


def test_show_attribution(checkpoint, appearance, draw):
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    latents = draw(model)
    for options in ({}, {"image": torch.rand(1, 192, 128, 3)}):
        sheet, masks = run("Parts2WholeShowAttribution", attribution=attribution, latent={"samples": latents}, **options)
        assert sheet.shape[0] == 1 and sheet.shape[-1] == 3 and sheet.min() >= 0 and sheet.max() <= 1
        assert masks.shape == (3, 192, 128)
    maps = attribution.maps(latents)
    assert (masks.mean((1, 2)) - maps[0, 1:4].mean((1, 2))).abs().max() < 1e-3


def test_latents_of_another_run_are_refused(checkpoint, appearance, draw):
    attribution, latents, _ = recorded(apply_parts(checkpoint.model, appearance), draw)
    with pytest.raises(ValueError, match="is not that of this latent"):
        attribution.maps(latents + 0.1)


def test_a_second_run_is_recorded_alone(checkpoint, appearance, draw):
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    draw(model)
    second = noise(seed=1)
    expected = recorded(apply_parts(checkpoint.model, appearance), draw, latent=second)[2]
    assert torch.equal(attribution.maps(draw(model, latent=second)), expected)


def test_without_parts_there_is_nothing_to_show(checkpoint, draw):
    model, attribution = run("Parts2WholeRecordAttribution", model=checkpoint.model)
    with pytest.raises(ValueError, match="No attention was recorded.*Connect Apply Parts2Whole"):
        attribution.maps(draw(model))


def test_context_windows_are_not_recorded_and_do_no_harm(checkpoint, appearance, draw):
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    for length, dim, batch in ((2, 0, 3), (20, 2, 1)):
        windowed = model.clone()
        windowed.model_options["context_handler"] = CountingWindows(length, dim=dim)
        latents = draw(windowed, latent=noise(batch=batch))
        with pytest.raises(ValueError, match="tiles, areas and context windows are not recorded"):
            attribution.maps(latents)


def test_areas_are_not_recorded_and_do_no_harm(checkpoint, appearance, draw):
    """Of a whole conditioning and an area's, the first step's shares are those of the whole one."""
    window = run(
        "ConditioningSetArea", conditioning=text(checkpoint.clip, "a coat"), width=64, height=96, x=32, y=64, strength=1.0
    )
    whole, model = text(checkpoint.clip, "a person"), apply_parts(checkpoint.model, appearance)
    expected = recorded(model, draw, steps=1, positive=whole)[2]
    assert rel(recorded(model, draw, steps=1, positive=whole + window)[2], expected) < 1e-5
    with pytest.raises(ValueError, match="tiles, areas and context windows are not recorded"):
        recorded(model, draw, steps=1, positive=window)


def test_half_precision_between_nodes_is_the_same_run(checkpoint, appearance, draw):
    attribution, latents, maps = recorded(apply_parts(checkpoint.model, appearance), draw)
    assert torch.equal(attribution.maps(latents.half()), maps)


def test_layers_that_another_node_replaces_are_not_recorded(checkpoint, appearance, draw):
    model = checkpoint.model.clone()
    for block in (("input", 1), ("input", 2)):
        model.set_model_attn1_replace(lambda q, k, v, options: v[:, :q.shape[1]], *block)
    layers = [
        sum(step.count for step in recorded(apply_parts(each, appearance), draw, steps=1)[0]._by_sigma.values())
        for each in (model, checkpoint.model)
    ]
    assert layers == [14, 16]
