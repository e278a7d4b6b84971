"""The pack's patches beside everything else that a graph does to a MODEL."""

from dataclasses import dataclass

import comfy.controlnet
import comfy.hooks
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from comfy.cldm.cldm import ControlNet
from comfy.context_windows import (
    ContextFuseMethods,
    ContextSchedules,
    IndexListContextHandler,
    get_matching_context_schedule,
    get_matching_fuse_method,
)
from comfy.ldm.modules.attention import optimized_attention
from comfy.model_management import InterruptProcessingException
from workbench import apply_image_attention, apply_parts, apply_pose, encode, golden_parts, noise, picture, rel, run, sample, text


@pytest.fixture(scope="module")
def appearance(checkpoint):
    with torch.inference_mode():
        return encode(checkpoint, golden_parts(checkpoint.clip, 3))


@pytest.fixture(scope="module")
def parts(checkpoint):
    with torch.inference_mode():
        return golden_parts(checkpoint.clip, 3)


@pytest.fixture
def everything(checkpoint, appearance, parts):
    """A function that applies parts, pose and image attention to a MODEL."""
    return lambda model: apply_image_attention(
        apply_pose(apply_parts(model, appearance), checkpoint.pose_guider), checkpoint, parts
    )


@pytest.fixture
def draw(checkpoint):
    return lambda model, **options: sample(model, checkpoint.clip, **options)


def lora(model, scale=0.3):
    """A random LoRA on every attn1 and attn2 projection, through the host's loader."""
    weights = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith(("to_k.weight", "to_v.weight", "to_q.weight")):
            key = "diffusion_model." + name.removesuffix(".weight")
            generator = torch.Generator().manual_seed(len(weights))
            weights[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 4, generator=generator) * scale
            weights[f"{key}.lora_down.weight"] = torch.randn(4, weight.shape[1], generator=generator) * scale
    return weights


def with_lora(model, strength=1.0):
    patched, _ = comfy.sd.load_lora_for_models(model, None, lora(model), strength, 0.0)
    assert len(patched.patches) == 96
    return patched


# --- what the patches do by themselves


def test_references_pose_and_image_tokens_each_change_the_result(checkpoint, appearance, parts, draw):
    plain = draw(checkpoint.model)
    for model in (
        apply_parts(checkpoint.model, appearance), apply_pose(checkpoint.model, checkpoint.pose_guider),
        apply_image_attention(checkpoint.model, checkpoint, parts),
    ):
        assert rel(draw(model), plain) > 0.05


def test_the_input_model_gives_the_same_bytes_before_and_after(checkpoint, everything, draw):
    before = draw(checkpoint.model)
    options = str(checkpoint.model.model_options)
    draw(everything(checkpoint.model))
    assert torch.equal(draw(checkpoint.model), before)
    assert str(checkpoint.model.model_options) == options


def test_the_same_inputs_give_the_same_bytes_also_when_encoded_again(checkpoint, parts, appearance, draw):
    again = encode(checkpoint, parts)
    for a, b in zip(appearance.references, again.references):
        for address in a.banks:
            assert torch.equal(a.banks[address].tokens, b.banks[address].tokens)
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance)), draw(apply_parts(checkpoint.model, again)))


@pytest.mark.parametrize("off", [{"strength": 0.0}, {"start_percent": 1.0}, {"start_percent": 0.5, "end_percent": 0.5}])
def test_switched_off_equals_the_unpatched_model_bit_for_bit(checkpoint, appearance, draw, off):
    plain = draw(checkpoint.model)
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance, **off)), plain)
    assert torch.equal(draw(apply_pose(checkpoint.model, checkpoint.pose_guider, **off)), plain)


def test_image_attention_of_strength_zero_equals_the_unpatched_model(checkpoint, parts, draw):
    assert torch.equal(draw(apply_image_attention(checkpoint.model, checkpoint, parts, 0.0)), draw(checkpoint.model))


def test_strength_goes_smoothly_to_zero(checkpoint, appearance, draw):
    plain = draw(checkpoint.model)
    change = [rel(draw(apply_parts(checkpoint.model, appearance, strength=s)), plain) for s in (1e-6, 0.01, 0.3, 1.0)]
    assert change[0] < 1e-3 and change == sorted(change)


def test_percents_are_of_the_sampling(checkpoint, appearance, draw):
    """Each half acts in its own steps: the first step of the early half is that of the full run, the late half's is plain."""
    sigmas = run("Parts2WholeSigmas", model=checkpoint.model, steps=4, denoise=1.0)
    full, plain = apply_parts(checkpoint.model, appearance), checkpoint.model
    early = apply_parts(checkpoint.model, appearance, end_percent=0.5)
    late = apply_parts(checkpoint.model, appearance, start_percent=0.5)
    assert torch.equal(draw(early, sigmas=sigmas[:2]), draw(full, sigmas=sigmas[:2]))
    assert torch.equal(draw(late, sigmas=sigmas[:2]), draw(plain, sigmas=sigmas[:2]))
    assert torch.equal(draw(early, sigmas=sigmas[2:]), draw(plain, sigmas=sigmas[2:]))
    assert torch.equal(draw(late, sigmas=sigmas[2:]), draw(full, sigmas=sigmas[2:]))


def test_drop_is_another_model_than_zero(checkpoint, appearance, draw):
    zero, drop = (draw(apply_parts(checkpoint.model, appearance, mask_mode=mode)) for mode in ("zero", "drop"))
    assert rel(drop, zero) > 0.02


def test_drop_equals_zero_where_nothing_is_masked(checkpoint, draw):
    whole = run("Parts2WholeMakePart", image=picture("ref_1"), label="face")
    appearance = encode(checkpoint, run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": whole}))
    zero, drop = (draw(apply_parts(checkpoint.model, appearance, mask_mode=mode)) for mode in ("zero", "drop"))
    assert torch.equal(drop, zero)


# --- chains and branches


def test_two_chained_applies_equal_one_of_the_combined_appearance(checkpoint, appearance, draw):
    first, second = (appearance._replace(references=r) for r in (appearance.references[:1], appearance.references[1:]))
    chained = apply_parts(apply_parts(checkpoint.model, first), second)
    combined = run("Parts2WholeCombineAppearances", appearances={"appearance0": first, "appearance1": second})
    assert combined.references == appearance.references
    assert rel(draw(chained), draw(apply_parts(checkpoint.model, combined))) < 1e-6


def test_chained_applies_keep_their_own_strength_and_mode(checkpoint, appearance, draw):
    first, second = (appearance._replace(references=r) for r in (appearance.references[:1], appearance.references[1:]))
    strong = apply_parts(checkpoint.model, first, strength=2.0)
    both = apply_parts(strong, second, mask_mode="drop", strength=0.5)
    swapped = apply_parts(apply_parts(checkpoint.model, second, mask_mode="drop", strength=0.5), first, strength=2.0)
    assert rel(draw(both), draw(swapped)) < 1e-5
    assert rel(draw(both), draw(strong)) > 0.01


def test_two_branches_of_a_graph_do_not_touch_each_other(checkpoint, appearance, everything, draw):
    one = apply_parts(checkpoint.model, appearance._replace(references=appearance.references[:1]))
    alone = draw(one)
    other = everything(checkpoint.model)
    draw(other)
    assert torch.equal(draw(one), alone)


def test_the_order_of_the_applies_does_not_matter(checkpoint, appearance, parts, draw):
    a = apply_parts(apply_pose(checkpoint.model, checkpoint.pose_guider), appearance)
    b = apply_pose(apply_parts(checkpoint.model, appearance), checkpoint.pose_guider)
    assert torch.equal(draw(a), draw(b))


# --- other nodes' patches, before and after ours


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


OTHERS = [
    with_lora, patch_attn1, patch_attn1_replace, patch_attn1_unhashable, patch_attn2, patch_attn2_replace, patch_outputs, freeu,
    pag, sag, hypertile, tome,
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


def test_the_chosen_attention_serves_ours_too(checkpoint, everything, draw):
    model = everything(checkpoint.model)
    expected = draw(model)
    calls = []

    def override(function, *args, **kwargs):
        calls.append(args[0].shape)
        assert args[0].shape[0] == len(kwargs["transformer_options"]["cond_or_uncond"]), "told of the chunks that it is given"
        return function(*args, **kwargs)

    model = model.clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = override
    assert torch.equal(draw(model, steps=2), expected)
    # 16 blocks, 2 steps: self-attention with and without references, attention to the text and to the image tokens.
    assert len(calls) == 16 * 2 * 4


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


# --- conditioning


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
    assert torch.equal(plain["uncond_denoised"], ours["uncond_denoised"])
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


class CountingWindows(IndexListContextHandler):
    """Core's context windows, which only run where the latent is longer than a window."""

    def __init__(self, length: int, dim: int, **options):
        super().__init__(
            context_schedule=get_matching_context_schedule(ContextSchedules.STATIC_STANDARD),
            fuse_method=get_matching_fuse_method(ContextFuseMethods.FLAT), context_length=length, context_overlap=0,
            context_stride=1, closed_loop=False, dim=dim, freenoise=False, **options,
        )
        self.calls = 0

    def execute(self, *args, **kwargs):
        self.calls += 1
        return super().execute(*args, **kwargs)


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
    windowed.model_options["context_handler"] = CountingWindows(12, dim=2, causal_window_fix=False)
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


def test_torch_compile(checkpoint, everything, draw):
    """Through the host's own wrapper; the eager backend compiles graphs and guards without generating code."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    torch._dynamo.reset()
    model = everything(checkpoint.model)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="eager")
    assert rel(draw(compiled), draw(model)) < 1e-5


def test_a_copy_for_another_device(checkpoint, everything, draw):
    """What the host does for several GPUs, here with a second copy on the CPU: every component knows how to load itself."""
    model = everything(checkpoint.model)
    copy = model.deepclone_multigpu(new_load_device=torch.device("cpu"))
    assert copy.model is not model.model
    assert torch.equal(draw(copy), draw(model))


def test_everything_is_computed_once_for_a_run(checkpoint, everything, draw, monkeypatch):
    import sys

    patch = sys.modules["parts2whole.attention.model_patch"]
    counts = {"join_references": 0, "encode_pose": 0}

    def count(name):
        original = getattr(patch, name)

        def counted(*args):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(patch, name, counted)

    count("join_references")
    count("encode_pose")
    model = everything(checkpoint.model)
    draw(model, steps=5)
    assert counts == {"join_references": 16, "encode_pose": 1}, "one set of keys for each of 16 layers, one pose"
    draw(model, steps=5)
    assert counts == {"join_references": 32, "encode_pose": 2}, "and again in the next run: nothing outlives one"

    counts.update(join_references=0, encode_pose=0)
    hooks = comfy.hooks.create_hook_lora(lora(model), 1.0, 0.0)
    conds = {
        name: run("ConditioningSetProperties", cond_NEW=text(checkpoint.clip, prompt), strength=1.0, set_cond_area="default",
                  hooks=hooks)
        for name, prompt in (("positive", "a person"), ("negative", ""))
    }
    draw(model, steps=5, **conds)
    assert counts == {"join_references": 16, "encode_pose": 1}, "weight hooks that stay the same are no exception"

    counts.update(join_references=0)
    draw(model, steps=5, positive=conds["positive"])
    assert counts["join_references"] == 16, "the negative conditioning's weights, without the hook, need no references"


def test_only_the_poses_that_are_needed_are_encoded(checkpoint, draw, monkeypatch):
    import sys

    patch = sys.modules["parts2whole.attention.model_patch"]
    encoded = []
    original = patch.encode_pose
    monkeypatch.setattr(patch, "encode_pose", lambda *args: encoded.append(len(args[1])) or original(*args))
    draw(apply_pose(checkpoint.model, checkpoint.pose_guider, picture("pose").expand(8, -1, -1, -1)), latent=noise(batch=2))
    assert sum(encoded) == 2


def test_chained_poses_load_the_guider_once(checkpoint, draw):
    twice = apply_pose(apply_pose(checkpoint.model, checkpoint.pose_guider, strength=0.5), checkpoint.pose_guider, strength=0.5)
    assert len(twice.get_additional_models()) == 1
    assert rel(draw(twice), draw(apply_pose(checkpoint.model, checkpoint.pose_guider))) < 1e-5


# --- batches, sizes, samplers


def test_each_picture_of_a_batch_equals_the_same_alone(checkpoint, everything, draw):
    latent = noise(batch=3)
    batch = draw(everything(checkpoint.model), latent=latent)
    for i in range(3):
        alone = draw(everything(checkpoint.model), latent={"samples": latent["samples"][i:i + 1]})
        assert rel(batch[i:i + 1], alone) < 1e-5


def test_a_batch_of_poses_gives_each_picture_its_own(checkpoint, draw):
    poses = torch.cat([picture("pose"), picture("pose").flip(2)])
    latent = noise(batch=2)
    batch = draw(apply_pose(checkpoint.model, checkpoint.pose_guider, poses), latent=latent)
    second = apply_pose(checkpoint.model, checkpoint.pose_guider, poses[1:])
    assert rel(batch[1:], draw(second, latent={"samples": latent["samples"][1:]})) < 1e-5


def test_conditionings_that_do_not_fit_into_memory_together(checkpoint, everything, draw):
    together = draw(everything(checkpoint.model), latent=noise(batch=2))
    model = everything(checkpoint.model)
    factor = model.model.memory_usage_factor
    try:
        model.model.memory_usage_factor = 1e9  # what the host goes by when it splits a batch
        assert rel(draw(model, latent=noise(batch=2)), together) < 1e-5
    finally:
        model.model.memory_usage_factor = factor


@pytest.mark.parametrize("height, width", [(8, 8), (17, 13), (9, 31), (24, 16), (40, 24)])
@pytest.mark.parametrize("frame", [(64, 64), (136, 104)])
def test_any_latent_size_with_references_of_another(checkpoint, parts, draw, height, width, frame):
    model = apply_pose(apply_parts(checkpoint.model, encode(checkpoint, parts, *frame)), checkpoint.pose_guider)
    result = draw(model, latent=noise(height, width))
    assert result.shape == (1, 4, height, width) and torch.isfinite(result).all()


@pytest.mark.parametrize("count", [1, 6, 16])
def test_one_to_sixteen_references(checkpoint, draw, count):
    part = run("Parts2WholeMakePart", image=picture("ref_2"), label="a scarf")
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={f"part{i}": part for i in range(count)})
    appearance = encode(checkpoint, parts, 64, 64)
    assert len(appearance.references) == count
    one = encode(checkpoint, parts[:1], 64, 64)
    # The same reference n times is one of n times the weight.
    assert rel(draw(apply_parts(checkpoint.model, appearance)), draw(apply_parts(checkpoint.model, one, strength=count))) < 1e-4


@pytest.mark.parametrize("sampler", ["euler_ancestral", "dpmpp_2m", "dpmpp_sde", "uni_pc", "lcm", "heun"])
@pytest.mark.parametrize("scheduler", ["karras", "simple"])
def test_ksampler(checkpoint, everything, sampler, scheduler):
    def ksampler(model):
        return run(
            "KSampler", model=model, seed=5, steps=3, cfg=3.5, sampler_name=sampler, scheduler=scheduler,
            positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""),
            latent_image={"samples": torch.zeros(1, 4, 24, 16)}, denoise=1.0,
        )["samples"]

    model = everything(checkpoint.model)
    result = ksampler(model)
    assert torch.isfinite(result).all()
    assert torch.equal(ksampler(model), result)
    assert rel(result, ksampler(checkpoint.model)) > 0.01


def test_ksampler_advanced_in_two_stages_equals_one(checkpoint, everything):
    def stage(model, latent, start, end, add_noise, leftover):
        return run(
            "KSamplerAdvanced", model=model, add_noise=add_noise, noise_seed=5, steps=4, cfg=3.5, sampler_name="euler",
            scheduler="normal", positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""),
            latent_image=latent, start_at_step=start, end_at_step=end, return_with_leftover_noise=leftover,
        )

    model, empty = everything(checkpoint.model), {"samples": torch.zeros(1, 4, 24, 16)}
    first = stage(model, empty, 0, 2, "enable", "enable")
    both = stage(model, first, 2, 4, "disable", "disable")
    assert rel(both["samples"], stage(model, empty, 0, 4, "enable", "disable")["samples"]) < 1e-5


def test_a_tiling_wrapper(checkpoint, appearance, draw, caplog):
    """As tiled diffusion does it: the U-Net sees one part of the latent at a time."""
    def tiled(apply_model, args):
        x, c = args["input"], args["c"]
        halves = [apply_model(half, args["timestep"], **c) for half in x.chunk(2, dim=2)]
        return torch.cat(halves, dim=2)

    def draw_tiled(model):
        model = model.clone()
        model.set_model_unet_function_wrapper(tiled)
        return draw(model)

    # The references are the same for every tile: two latents of a tile's size, put together, are the tiled one.
    model = apply_parts(checkpoint.model, appearance)
    halves = [draw(model, latent={"samples": half}) for half in noise()["samples"].chunk(2, dim=2)]
    assert rel(draw_tiled(model), torch.cat(halves, dim=2)) < 1e-5

    # A tile's place is not known, so the pose cannot be cut: that is said, once.
    draw_tiled(apply_pose(checkpoint.model, checkpoint.pose_guider))
    assert caplog.text.count("Each tile gets the whole pose") == 1


# --- errors and interrupts


@pytest.mark.parametrize("error", [InterruptProcessingException, RuntimeError])
def test_running_again_after_an_error_in_mid_sampling_gives_the_same_bytes(checkpoint, everything, draw, error):
    model = everything(checkpoint.model)
    expected, plain = draw(model), draw(checkpoint.model)
    calls = []

    def fail(args):
        calls.append(1)
        if len(calls) == 2:
            raise error()
        return args["denoised"]

    failing = model.clone()
    failing.set_model_sampler_post_cfg_function(fail)
    with pytest.raises(error):
        draw(failing)
    assert torch.equal(draw(model), expected)
    assert torch.equal(draw(checkpoint.model), plain)


def test_an_interrupted_encoding_can_be_repeated(checkpoint, parts, appearance):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    with pytest.raises(InterruptProcessingException):
        encode(checkpoint, parts)
    again = encode(checkpoint, parts)
    assert torch.equal(again.references[0].banks[("middle", 0, 0)].tokens, appearance.references[0].banks[("middle", 0, 0)].tokens)
