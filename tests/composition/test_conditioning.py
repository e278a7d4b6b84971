"""Areas, masks, guiders and context windows: who sees references, and which part of the pose."""

import comfy.controlnet
import comfy.hooks
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from harness.windows import CountingWindows
from harness.workbench import apply_image_attention, apply_parts, apply_pose, noise, picture, rel, run, sample, text


def area(checkpoint, prompt="a person, realistic", **window):
    window = {"width": 64, "height": 96, "x": 32, "y": 64, "strength": 1.0, **window}
    return run("ConditioningSetArea", conditioning=text(checkpoint.clip, prompt), **window)


def test_area_conditioning(checkpoint, everything, draw):
    positive = text(checkpoint.clip, "a person, realistic") + area(checkpoint, "blurry, low quality")
    result = draw(everything(checkpoint.model), positive=positive)
    assert torch.isfinite(result).all()
    assert rel(result, draw(everything(checkpoint.model))) > 0.01


def test_the_pose_of_an_area_is_the_window_of_the_whole_pose(checkpoint, draw):
    """Nothing but the pose is in the latent's first convolution: where the picture is even, a window equals the whole."""
    seen = []

    def keep(h, options):
        if options["block"] == ("input", 0):
            seen.append(h)
        return h

    def first_convolution(positive):
        seen.clear()
        model = apply_pose(checkpoint.model, checkpoint.pose_guider).clone()
        # Runs before the pose is added: both are input block patches, and ours come last.
        model.set_model_input_block_patch_after_skip(keep)
        draw(model, positive=positive, cfg=1.0, steps=1)
        return seen[0]

    whole, window = first_convolution(text(checkpoint.clip, "a person, realistic")), first_convolution(area(checkpoint))
    assert window.shape[2:] == (12, 8)
    # But for the border, where the convolution of the latent sees padding.
    assert rel(window[:, :, 1:-1, 1:-1], whole[:, :, 8:20, 4:12][:, :, 1:-1, 1:-1]) < 1e-5


def test_conditioning_set_mask(checkpoint, everything, draw):
    mask = torch.zeros(1, 192, 128)
    mask[:, :96] = 1
    masked = [
        run("ConditioningSetMask", conditioning=text(checkpoint.clip, prompt), mask=m, strength=1.0, set_cond_area="default")
        for prompt, m in (("a person, realistic", mask), ("blurry, low quality", 1 - mask))
    ]
    result = draw(everything(checkpoint.model), positive=masked[0] + masked[1])
    assert rel(result, draw(everything(checkpoint.model))) > 0.01


def test_only_the_positive_conditioning_sees_references(checkpoint, appearance, draw):
    halves = {}

    def keep(args):
        halves.update({name: args[name] for name in ("cond_denoised", "uncond_denoised")})
        return args["denoised"]

    def predict(model):
        model = model.clone()
        model.set_model_sampler_post_cfg_function(keep)
        draw(model, steps=1)
        return dict(halves)

    plain, ours = predict(checkpoint.model), predict(apply_parts(checkpoint.model, appearance))
    # Alone and in a batch of two, a CPU sums in another order now and then.
    assert rel(ours["uncond_denoised"], plain["uncond_denoised"]) < 1e-5
    assert rel(ours["cond_denoised"], plain["cond_denoised"]) > 1e-3


def test_guiders_that_put_the_positive_conditioning_elsewhere(checkpoint, appearance):
    """DualCFG asks for [negative, middle, positive]: with both scales 1, only the positive one is left."""
    def guide(model):
        return sample_advanced(model, run(
            "DualCFGGuider", model=model, cond1=text(checkpoint.clip, "a person, realistic"), cond2=text(checkpoint.clip, "face"),
            negative=text(checkpoint.clip, ""), cfg_conds=1.0, cfg_cond2_negative=1.0, style="regular",
        ))

    model = apply_parts(checkpoint.model, appearance)
    assert rel(guide(model), sample(model, checkpoint.clip, cfg=1.0)) < 1e-4
    assert rel(guide(model), guide(checkpoint.model)) > 0.05


def test_without_guidance(checkpoint, appearance, draw):
    model = apply_parts(checkpoint.model, appearance)
    assert rel(draw(model, cfg=1.0), draw(checkpoint.model, cfg=1.0)) > 0.05
    assert rel(draw(model, cfg=0.5), draw(model, cfg=1.0)) > 0.01


def sample_advanced(model, guider, latent=None):
    return run(
        "SamplerCustomAdvanced", noise=run("DisableNoise"), guider=guider, sampler=run("KSamplerSelect", sampler_name="euler"),
        sigmas=run("Parts2WholeSigmas", model=model, steps=2, denoise=1.0), latent_image=latent or noise(),
    )[0]["samples"]


def test_perp_neg_as_a_guider_and_as_a_patch(checkpoint, appearance, draw):
    """The patch asks for the empty conditioning apart, and alone: it must not see the references either."""
    model = apply_parts(checkpoint.model, appearance)
    positive, negative, empty = (text(checkpoint.clip, prompt) for prompt in ("a person, realistic", "blurry", ""))
    guider = run(
        "PerpNegGuider", model=model, positive=positive, negative=negative, empty_conditioning=empty, cfg=3.0, neg_scale=1.0
    )
    patched = run("PerpNeg", model=model, empty_conditioning=empty, neg_scale=1.0)
    result = draw(patched, positive=positive, negative=negative, cfg=3.0)
    assert rel(result, sample_advanced(model, guider)) < 1e-5
    assert rel(result, draw(run("PerpNeg", model=checkpoint.model, empty_conditioning=empty, neg_scale=1.0), cfg=3.0)) > 0.01


@pytest.mark.parametrize("guider_node", ["CFGGuider", "DualCFGGuider"])
def test_context_windows_over_a_batch(checkpoint, appearance, parts, guider_node):
    """Each latent is as without windows: it keeps its pose, and the conditionings keep their roles though they are copied."""
    poses = torch.cat([picture("pose").roll(shift, 2) for shift in (0, 40, 80, 120)])
    model = apply_image_attention(
        apply_pose(apply_parts(checkpoint.model, appearance), checkpoint.pose_guider, poses), checkpoint, parts
    )

    def guide(model):
        clip = checkpoint.clip
        if guider_node == "CFGGuider":
            guider = run("CFGGuider", model=model, positive=text(clip, "a"), negative=text(clip, ""), cfg=3.0)
        else:
            guider = run(
                "DualCFGGuider", model=model, cond1=text(clip, "a"), cond2=text(clip, "face"), negative=text(clip, ""),
                cfg_conds=2.0, cfg_cond2_negative=3.0, style="regular",
            )
        return sample_advanced(model, guider, noise(batch=4))

    windowed = model.clone()
    windowed.model_options["context_handler"] = handler = CountingWindows(2, dim=0)
    assert rel(guide(windowed), guide(model)) < 1e-5
    assert handler.calls == 2


def test_context_windows_over_the_height_cut_the_pose(checkpoint, draw):
    seen = []
    whole = apply_pose(checkpoint.model, checkpoint.pose_guider)
    whole.set_model_input_block_patch_after_skip(
        lambda h, options: seen.append(h) or h if options["block"] == ("input", 0) else h
    )
    windowed = whole.clone()
    windowed.model_options["context_handler"] = CountingWindows(12, dim=2)
    draw(whole, steps=1, cfg=1.0)
    draw(windowed, steps=1, cfg=1.0)
    first, *windows = seen
    assert [window.shape[2:] for window in windows] == [(12, 16), (12, 16)]
    for i, window in enumerate(windows):  # but for the border, where the latent's convolution sees padding
        assert rel(window[:, :, 1:-1], first[:, :, 12 * i + 1:12 * i + 11]) < 1e-5


def test_conditionings_that_a_node_makes_while_sampling(checkpoint, appearance, draw):
    """They carry no mark: the first of several is the positive one, as everywhere in the host."""
    model = apply_parts(checkpoint.model, appearance).clone()

    def calculate(args):
        fresh = [[{key: value for key, value in c.items() if key != "parts2whole"} for c in cond] for cond in args["conds"]]
        return comfy.samplers.calc_cond_batch(args["model"], fresh, args["input"], args["sigma"], args["model_options"])

    expected = draw(model)
    model.set_model_sampler_calc_cond_batch_function(calculate)
    assert torch.equal(draw(model), expected)
