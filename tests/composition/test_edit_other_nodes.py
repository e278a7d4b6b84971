"""Edit models with what else is on the MODEL and on the conditionings."""

import comfy.model_management
import comfy.sampler_helpers
import comfy.sd
import nodes as host_nodes
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from harness.edit_models import (
    KINDS,
    draw,
    draw_custom,
    edit_model,
    mask,
    prompt,
    references,
    some_latent,
    supported,
    whole,
    with_parts,
)
from harness.host import load_core_nodes
from harness.workbench import rel, run

load_core_nodes("nodes_edit_model", "nodes_flux", "nodes_easycache")

HERE = [kind for kind in KINDS if supported(kind)]
MODELS = {kind: edit_model(kind) for kind in HERE}
MASKS = mask(6, 8, 4), mask(4, 4, 2)
each_kind = pytest.mark.parametrize("kind", HERE)
has_kv_cache = pytest.mark.skipif("FluxKVCache" not in host_nodes.NODE_CLASS_MAPPINGS, reason="this ComfyUI has no Flux KV Cache")


def apply(model):
    return run("Parts2WholeApplyReferences", model=model)


def parts(kind, **options):
    return with_parts(prompt(kind), references(kind), MASKS, **options)


@has_kv_cache
@pytest.mark.parametrize("options", [{}, {"strength": 2.0}])
def test_the_hosts_kv_cache_before_and_after(options):
    """It keeps the keys of the references from the first step on: of one step nothing changes, and of whole masks neither."""
    def cached(model):
        return run("FluxKVCache", model=model)

    model = MODELS["flux2"]
    before, after, alone = apply(cached(model)), cached(apply(model)), apply(model)
    ours = parts("flux2", **options)
    # Without guidance: the host's node mixes up the conditionings of several.
    one = draw_custom(alone, "flux2", run_method(ours), steps=1)
    assert rel(draw_custom(before, "flux2", ours, steps=1), one) < 5e-6
    two = [draw_custom(each(), "flux2", ours, steps=3) for each in (lambda: apply(cached(model)), lambda: cached(apply(model)))]
    assert torch.equal(*two)
    if not options:
        everything = with_parts(prompt("flux2"), references("flux2"), [torch.ones(6, 8) > 0, torch.ones(4, 4) > 0])
        host = draw_custom(cached(model), "flux2", whole(prompt("flux2"), *references("flux2")), steps=3)
        assert torch.equal(draw_custom(after, "flux2", everything, steps=3), host)
    assert rel(two[0], draw_custom(alone, "flux2", run_method(ours), steps=3)) < 0.1


def run_method(conditioning):
    """What the cache sets on its model"""
    return run("FluxKontextMultiReferenceLatentMethod", conditioning=conditioning, reference_latents_method="index_timestep_zero")


def lora(model):
    generator = torch.Generator().manual_seed(5)
    weights = {}
    for name, weight in model.model.diffusion_model.state_dict().items():
        if name.endswith("weight") and weight.ndim == 2 and "block" in name:
            key = "diffusion_model." + name.removesuffix(".weight")
            weights[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.3
            weights[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.3
    return weights


@each_kind
def test_a_lora_before_and_after(kind):
    model, weights = MODELS[kind], lora(MODELS[kind])
    before = apply(comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0])
    after = comfy.sd.load_lora_for_models(apply(model), None, weights, 1.0, 0.0)[0]
    result = draw(before, kind, parts(kind))
    assert torch.equal(draw(after, kind, parts(kind)), result)
    assert rel(draw(apply(model), kind, parts(kind)), result) > 0.01


@each_kind
def test_a_cache_of_steps(kind):
    """EasyCache skips calls of the model: the host's result with whole references, and no error where it skips ours."""
    def cached(model):
        return run("EasyCache", model=model, reuse_threshold=3.0, start_percent=0.0, end_percent=1.0, verbose=False)

    full = with_parts(prompt(kind), references(kind), [torch.ones(6, 8) > 0, torch.ones(4, 4) > 0])
    host = draw(cached(MODELS[kind]), kind, whole(prompt(kind), *references(kind)), steps=5)
    for model in (apply(cached(MODELS[kind])), cached(apply(MODELS[kind]))):
        assert torch.equal(draw(model, kind, full, steps=5), host)
        assert rel(draw(model, kind, parts(kind), steps=5), draw(apply(MODELS[kind]), kind, parts(kind), steps=5)) > 1e-6


def test_a_model_that_is_never_called_is_warned_of(caplog):
    """A cache that answers in the model's place."""
    model = apply(MODELS["flux"])
    cached = model.clone()
    cached.set_model_unet_function_wrapper(lambda apply_model, args: torch.zeros_like(args["input"]))
    for each, conditioning, times in ((model, parts("flux"), 0), (cached, prompt("flux"), 0), (cached, parts("flux"), 1)):
        draw(each, "flux", conditioning)
        assert caplog.text.count("the run ended without a call of the model that reached the parts of Reference Parts") == times


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_rows_that_nobody_tells_of_have_their_tokens_and_strengths(strength):
    """A node that calls the model with one row at a time, whatever cond_or_uncond says; for a region it has to be known."""
    def one_by_one(apply_model, args):
        x, t, c = args["input"], args["timestep"], args["c"]
        rows = [
            apply_model(x[i:i + 1], t[i:i + 1], **c | {
                name: c[name][i:i + 1] if name != "ref_latents" else [latent[i:i + 1] for latent in c[name]]
                for name in ("c_crossattn", "y", "guidance", "ref_latents") if name in c
            })
            for i in range(len(x))
        ]
        return torch.cat(rows)

    model, region = apply(MODELS["flux"]), torch.rand(1, 6, 4)
    split = model.clone()
    split.set_model_unet_function_wrapper(one_by_one)
    same = with_parts(prompt("flux", 1), references("flux"), MASKS, strength)
    together = draw(model, "flux", parts("flux", strength=strength), same)
    assert rel(draw(split, "flux", parts("flux", strength=strength), same), together) < 1e-5
    with_region = with_parts(prompt("flux", 1), references("flux"), MASKS, strength, region)
    with pytest.raises(ValueError, match="gives the model 1 rows for 2 conditionings"):
        draw(split, "flux", parts("flux", strength=strength, region=region), with_region)


class Doubled:
    """Another node's attention: it counts its calls, calls what the host chose, and doubles the result."""

    def __init__(self):
        self.calls = 0

    def __call__(self, attention, *args, **kwargs):
        self.calls += 1
        return 2 * attention(*args, **kwargs)


@pytest.mark.parametrize("strength", [1.0, 2.0])
def test_another_nodes_attention_is_called(strength):
    results = []
    for ours_first in (True, False):
        model, doubled = MODELS["flux"].clone(), Doubled()
        model = apply(model) if ours_first else model
        model.model_options["transformer_options"]["optimized_attention_override"] = doubled
        results.append(draw_custom(model if ours_first else apply(model), "flux", parts("flux", strength=strength), steps=1))
        assert doubled.calls == 2, "once for each block"
        assert model.model_options["transformer_options"]["optimized_attention_override"] is doubled
    assert torch.equal(*results)
    assert rel(results[0], draw_custom(apply(MODELS["flux"]), "flux", parts("flux", strength=strength), steps=1)) > 0.01


@each_kind
def test_another_nodes_patches_of_tokens_and_blocks_are_called(kind):
    """A replaced block and a patch of the tokens see what is kept."""
    lengths, model = [], MODELS[kind].clone()
    if kind != "krea2":  # it takes no replacements of blocks

        def replaced(args, extra):
            lengths.append(args["img"].shape[1])
            return extra["original_block"](args)

        model.set_model_patch_replace(replaced, "dit", "double_block", 0)

    def sees(args):
        lengths.append(args["img_ids"].shape[1])
        return args

    after = apply(model)
    after.set_model_post_input_patch(sees)
    result = draw_custom(after, kind, parts(kind), steps=1)
    assert torch.equal(result, draw_custom(apply(MODELS[kind]), kind, parts(kind), steps=1))
    side = 1 if kind in ("flux2", "mage") else 2
    target, every, kept = 24 // side ** 2, (24 + 48 + 16) // side ** 2, (24 + 32 + 8) // side ** 2
    assert target < kept and lengths == [every] + [kept] * (kind != "krea2")


@each_kind
def test_an_interrupted_run_leaves_nothing(kind):
    model = apply(MODELS[kind])
    expected = draw(model, kind, parts(kind, strength=2.0))
    broken, calls = model.clone(), []

    def breaks(apply_model, args):
        calls.append(None)
        if len(calls) > 2:
            raise InterruptProcessingException
        return apply_model(args["input"], args["timestep"], **args["c"])

    broken.set_model_unet_function_wrapper(breaks)
    with pytest.raises(InterruptProcessingException):
        draw(broken, kind, parts(kind, strength=2.0), steps=3)
    assert torch.equal(draw(model, kind, parts(kind, strength=2.0)), expected)


def test_equal_references_of_positive_and_negative_are_one_batch():
    sizes = []

    def counts(apply_model, args):
        sizes.append(len(args["input"]))
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = apply(MODELS["flux"])
    model.set_model_unet_function_wrapper(counts)
    same, other = (with_parts(prompt("flux", 1), references("flux"), masks) for masks in (MASKS, (mask(6, 8, 3), mask(4, 4, 2))))
    for negative, expected in ((same, [2]), (other, [1, 1])):
        sizes.clear()
        draw(model, "flux", parts("flux"), negative, steps=1)
        assert sizes == expected


@each_kind
def test_the_host_plans_memory_for_what_is_kept(kind, monkeypatch):
    planned, batched, model = [], [], MODELS[kind].model
    estimate, required = comfy.sampler_helpers.estimate_memory, model.memory_required
    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", lambda *args: planned.append(estimate(*args)) or planned[-1])

    def noted(shape, cond_shapes):
        if cond_shapes.get("ref_latents"):
            batched.append(cond_shapes["ref_latents"][0][-1])
        return required(shape, cond_shapes)

    monkeypatch.setattr(model, "memory_required", noted, raising=False)
    sizes = []
    for rows in (0, 3, 6):
        conditioning = with_parts(prompt(kind), references(kind)[:1], (mask(6, 8, rows),))
        draw(apply(MODELS[kind]), kind, conditioning, conditioning, steps=1)
        sizes.append((planned[-1][0], batched[-1]))
    host = whole(prompt(kind), references(kind)[0])
    draw(MODELS[kind], kind, host, host, steps=1)
    assert sizes[-1] == (planned[-1][0], batched[-1]), "whole masks are planned as the host plans them"
    (none, no_tokens), (half, half_tokens), (full, tokens) = sizes
    assert half == pytest.approx((none + full) / 2) and none < full
    assert no_tokens == 0 and half_tokens * 2 == tokens


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """Whole masks are the host's result bit for bit, and a strength is what it is in float32, to within the rounding."""
    half, kind = edit_model("flux", dtype), "flux"
    full = with_parts(prompt(kind), references(kind), [torch.ones(6, 8) > 0, torch.ones(4, 4) > 0])
    assert torch.equal(draw(apply(half), kind, full), draw(half, kind, whole(prompt(kind), *references(kind))))
    conditioning = parts(kind, strength=2.0, region=torch.rand(1, 6, 4))
    result, expected = draw(apply(half), kind, conditioning), draw(apply(MODELS[kind]), kind, conditioning)
    plain = rel(draw(half, kind, prompt(kind)), draw(MODELS[kind], kind, prompt(kind)))
    assert rel(result, expected) < 2 * plain < 0.1


def test_a_lower_resolution_of_the_target_and_odd_sizes():
    """Latents whose sides are no multiples of a token's."""
    kind = "flux"
    latents = some_latent(kind, 5, 7, 1), some_latent(kind, 3, 3, 2)
    full = with_parts(prompt(kind), latents, [torch.ones(5, 7) > 0, torch.ones(3, 3) > 0])
    host = draw(MODELS[kind], kind, whole(prompt(kind), *latents), size=(7, 5))
    assert torch.equal(draw(apply(MODELS[kind]), kind, full, size=(7, 5)), host)
    some = with_parts(prompt(kind), latents, [mask(5, 7, 2), mask(3, 3, 1)], 2.0, torch.rand(1, 30, 20))
    assert draw(apply(MODELS[kind]), kind, some, size=(7, 5)).isfinite().all()
