"""Beside other nodes' patches, before ours and after."""

from dataclasses import dataclass

import comfy.controlnet
import comfy.hooks
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.cldm.cldm import ControlNet
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrappersMP
from harness.workbench import apply_parts, lora, noise, picture, rel, run, text, with_lora
from parts2whole.attention.patch.host.unet import transformer_blocks


def custom_attn1(q, k, v, options):
    custom_attn1.calls.append((q.shape[0], q.shape[1], k.shape[1]))
    return optimized_attention(q, k, v, options["n_heads"], attn_precision=options["attn_precision"]) * 0.5


def patch_attn1_replace(model):
    model = model.clone()
    custom_attn1.calls = []
    for block in (("input", 1), ("middle", 0)):
        model.set_model_attn1_replace(custom_attn1, *block)
    model.set_model_attn1_replace(custom_attn1, "output", 11, 0)
    return model


@dataclass
class Unhashable:
    factor: float

    def __call__(self, q, k, v, options):
        return optimized_attention(q, k, v, options["n_heads"]) * self.factor


def patch_attn1_unhashable(model):
    model = model.clone()
    model.set_model_attn1_replace(Unhashable(0.5), "input", 1)
    return model


def patch_attn1(model):
    model = model.clone()
    model.set_model_attn1_patch(lambda n, context, value, options: (n, context * 0.9, value * 1.1))
    return model


def patch_attn2(model):
    model = model.clone()
    model.set_model_attn2_patch(lambda n, context, value, options: (n * 1.1, context, value))
    return model


def patch_attn2_replace(model):
    model = model.clone()

    def double(q, k, v, options):
        return optimized_attention(q, k, v, options["n_heads"]) * 2

    model.set_model_attn2_replace(double, "input", 2)
    model.set_model_attn2_replace(double, "output", 5, 0)
    return model


def patch_outputs(model):
    model = model.clone()
    model.set_model_attn1_output_patch(lambda n, options: n * 0.9)
    model.set_model_attn2_output_patch(lambda n, options: n * 1.1)
    model.set_model_output_block_patch(lambda h, skip, options: (h * 0.95, skip))
    return model


def freeu(model):
    return run("FreeU_V2", model=model, b1=1.3, b2=1.4, s1=0.9, s2=0.2)


def pag(model):
    return run("PerturbedAttentionGuidance", model=model, scale=2.0)


def sag(model):
    return run("SelfAttentionGuidance", model=model, scale=0.5, blur_sigma=2.0)


def hypertile(model):
    return run("HyperTile", model=model, tile_size=64, swap_size=1, max_depth=1, scale_depth=False)


def tome(model):
    return run("TomePatchModel", model=model, ratio=0.3)


def deep_shrink(model):
    return run(
        "PatchModelAddDownscale", model=model, block_number=3, downscale_factor=2.0, start_percent=0.0, end_percent=0.6,
        downscale_after_skip=True, downscale_method="bicubic", upscale_method="bicubic",
    )


def rescale_cfg(model):
    return run("RescaleCFG", model=model, multiplier=0.7)


def cfg_zero_star(model):
    return run("CFGZeroStar", model=model)


def lora_bypass(model):
    bypassed, _ = comfy.sd.load_bypass_lora_for_models(model, None, lora(model), 1.0, 0.0)
    return bypassed


OTHERS = [
    with_lora, lora_bypass, patch_attn1, patch_attn1_replace, patch_attn1_unhashable, patch_attn2, patch_attn2_replace,
    patch_outputs, freeu, pag, sag, hypertile, tome, deep_shrink, rescale_cfg, cfg_zero_star,
]


@pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.__name__)
def test_another_node_before_or_after_ours_makes_no_difference_and_is_heard(checkpoint, everything, draw, other):
    def run_seeded(model):
        torch.manual_seed(0)  # HyperTile and ToMe draw from the global generator
        return draw(model)

    ours = run_seeded(everything(checkpoint.model))
    before = run_seeded(everything(other(checkpoint.model)))
    after = run_seeded(other(everything(checkpoint.model)))
    alone = run_seeded(other(checkpoint.model))
    assert torch.isfinite(before).all()
    assert rel(before, after) < 1e-5
    assert rel(before, ours) > 1e-3, "the other node is not heard"
    assert rel(before, alone) > 1e-2, "ours is not heard"


def test_an_earlier_replacement_sees_the_references_and_each_half_apart(checkpoint, appearance, draw):
    draw(patch_attn1_replace(apply_parts(checkpoint.model, appearance)), steps=1)
    kept = sum(ref.banks[("input", 1, 0)].tokens.shape[0] for ref in appearance.references)
    # One row each for the unconditional and the conditional half; the null key is one more.
    assert {call for call in custom_attn1.calls if call[1] == 384} == {(1, 384, 384), (1, 384, 384 + kept + 1)}


def test_an_earlier_replacement_can_tell_conditionings_by_their_uuids(checkpoint, appearance, draw):
    """As nodes do that act on one conditioning's rows: they find them as the chunks that `uuids` names, or `cond_or_uncond`."""
    uuids = set()

    def note(executor, model, conds, *args):
        uuids.update(cond["uuid"] for cond in conds[0])
        return executor(model, conds, *args)

    def halving(positive_chunks):
        def halve(q, k, v, options):
            out, positive = optimized_attention(q, k, v, options["n_heads"]), positive_chunks(options)
            assert len(out) % len(positive) == 0
            return torch.cat([rows * 0.5 if flag else rows for rows, flag in zip(out.chunk(len(positive)), positive)])

        model = checkpoint.model.clone()
        model.add_wrapper(WrappersMP.CALC_COND_BATCH, note)
        model.set_model_attn1_replace(halve, "input", 1)
        return draw(apply_parts(model, appearance), latent=noise(batch=2))

    by_number = halving(lambda options: [number == 0 for number in options["cond_or_uncond"]])
    assert torch.equal(halving(lambda options: [uuid in uuids for uuid in options["uuids"]]), by_number)
    assert rel(draw(apply_parts(checkpoint.model, appearance), latent=noise(batch=2)), by_number) > 1e-3


def test_the_chosen_attention_serves_ours_too(checkpoint, everything, draw, monkeypatch):
    model = everything(checkpoint.model)
    expected = draw(model)
    calls = []

    def override(function, *args, **kwargs):
        calls.append(args[0].shape)
        assert kwargs.get("mask") is None, "not every attention takes one"
        assert kwargs["attn_precision"] is torch.float32, "what the model asks for"
        assert args[0].shape[0] == len(kwargs["transformer_options"]["cond_or_uncond"]), "told of the chunks that it is given"
        return function(*args, **kwargs)

    for block in transformer_blocks(model.model.diffusion_model).values():
        monkeypatch.setattr(block, "attn_precision", torch.float32)
    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    assert rel(draw(model, steps=2), expected) < 1e-5
    # 16 blocks, 2 steps: self-attention with and without references, attention to the text and to the image tokens.
    assert len(calls) == 16 * 2 * 4


def test_on_a_cpu_a_mask_carries_what_is_added_to_the_logits(checkpoint, appearance, draw, monkeypatch):
    """Heads as wide as the model's, which is faster there: docs/performance.md."""
    from parts2whole.attention.patch import unet_patches

    seen, attention = [], unet_patches.optimized_attention

    def spy(q, k, v, heads, mask=None, **kwargs):
        seen.append((q.shape[-1], k.shape[1], None if mask is None else tuple(mask.shape)))
        return attention(q, k, v, heads, mask=mask, **kwargs)

    monkeypatch.setattr(unet_patches, "optimized_attention", spy)
    draw(apply_parts(checkpoint.model, appearance), steps=1)
    with_references = [(width, keys, mask) for width, keys, mask in seen if mask is not None]
    assert len(with_references) == len(seen) / 2 == 16
    assert all(mask == (1, 1, keys) for _, keys, mask in with_references)
    assert {width for width, *_ in with_references} == {width for width, _, mask in seen if mask is None}


def test_a_lora_reaches_the_keys_and_values_of_the_references(checkpoint, appearance, draw):
    """As if its weights had been in the file: no keys of the unpatched model are kept from an earlier run."""
    model = apply_parts(checkpoint.model, appearance)
    plain = draw(model)
    assert rel(draw(with_lora(model)), plain) > 0.01
    assert torch.equal(draw(model), plain)

    merged = checkpoint.model.clone()
    keys = comfy.lora.model_lora_keys_unet(merged.model, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(lora(merged)), keys)
    weights = {key: comfy.lora.calculate_weight([(1.0, patch, 1.0, None, None)], weight.clone(), key)
               for key, patch in patches.items() for weight in [comfy.utils.get_attr(merged.model, key)]}
    merged.add_patches({key: ("set", (weight,)) for key, weight in weights.items()})
    assert rel(draw(apply_parts(merged, appearance)), draw(with_lora(model))) < 1e-5


def test_weight_hooks_that_change_during_a_run_leave_no_stale_keys(checkpoint, appearance, draw):
    """A LoRA by hooks on the conditionings, switched on half-way by a keyframe, equals two runs, one for each weight."""
    model = apply_parts(checkpoint.model, appearance)
    sigmas = run("Parts2WholeSigmas", model=model, steps=4, denoise=1.0)
    half = draw(model, sigmas=sigmas[:3])
    expected = draw(with_lora(model), sigmas=sigmas[2:], latent={"samples": half})

    hooks = comfy.hooks.create_hook_lora(lora(model), 1.0, 0.0)
    keyframes = comfy.hooks.HookKeyframeGroup()
    keyframes.add(comfy.hooks.HookKeyframe(strength=0.0, start_percent=0.0, guarantee_steps=0))
    middle = float(1 - model.get_model_object("model_sampling").timestep((sigmas[1] * sigmas[2]).sqrt()) / 999)
    keyframes.add(comfy.hooks.HookKeyframe(strength=1.0, start_percent=middle, guarantee_steps=0))
    hooks.set_keyframes_on_hooks(keyframes)
    conds = {
        name: run("ConditioningSetProperties", cond_NEW=text(checkpoint.clip, prompt), strength=1.0, set_cond_area="default",
                  hooks=hooks)
        for name, prompt in (("positive", "a person, realistic"), ("negative", ""))
    }
    assert rel(draw(model, sigmas=sigmas, **conds), expected) < 1e-4
    assert rel(expected, draw(model, sigmas=sigmas)) > 0.01


def test_controlnet(checkpoint, everything, draw):
    config = checkpoint.model.model.model_config.unet_config
    torch.manual_seed(0)
    with torch.inference_mode(False):
        control_model = ControlNet(
            hint_channels=3, **{k: v for k, v in config.items() if k not in ("out_channels", "transformer_depth_output")}
        )
        for parameter in control_model.parameters():
            parameter.data.normal_(std=0.05)
    control = comfy.controlnet.ControlNet(control_model, load_device=torch.device("cpu"), manual_cast_dtype=torch.float32)
    positive, negative = run(
        "ControlNetApplyAdvanced", positive=text(checkpoint.clip, "a person, realistic"), negative=text(checkpoint.clip, ""),
        control_net=control, image=picture("pose"), strength=1.0, start_percent=0.0, end_percent=1.0,
    )
    controlled = draw(everything(checkpoint.model), positive=positive, negative=negative)
    assert rel(controlled, draw(everything(checkpoint.model))) > 0.01
    assert rel(controlled, draw(checkpoint.model, positive=positive, negative=negative)) > 0.01
