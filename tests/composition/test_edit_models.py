"""Masked references of edit models, through the host's samplers: tiny models of each kind with random weights."""

import copy

import comfy.supported_models
import pytest
import torch
from comfy.patcher_extension import WrappersMP
from harness.edit_models import (
    KINDS,
    build,
    draw,
    draw_custom,
    edit_model,
    exists,
    mask,
    prompt,
    references,
    supported,
    whole,
    with_parts,
)
from harness.host import load_core_nodes
from harness.workbench import rel, run

load_core_nodes("nodes_edit_model", "nodes_flux")

HERE = [kind for kind in KINDS if supported(kind)]
MODELS = {kind: edit_model(kind) for kind in HERE}
# Flux.1 fails in the host itself with index_timestep_zero.
METHODS = {
    "flux": ("offset", "index", "uxo"), "flux2": ("offset", "index", "uxo", "index_timestep_zero"),
    "qwen": ("offset", "index", "negative_index", "index_timestep_zero"), "krea2": ("index", "index_timestep_zero"),
    "mage": ("index",),
}
each_kind = pytest.mark.parametrize("kind", HERE)


def applied(kind, **percents):
    return run("Parts2WholeApplyReferences", model=MODELS[kind], **percents)


def with_method(conditioning, method):
    return run("FluxKontextMultiReferenceLatentMethod", conditioning=conditioning, reference_latents_method=method)


@pytest.mark.parametrize("kind, method", [(kind, method) for kind in HERE for method in METHODS[kind]])
def test_whole_masks_give_the_hosts_result_bit_for_bit(kind, method):
    latents = references(kind)
    parts = with_parts(prompt(kind), latents, [torch.ones(latent.shape[-2:]) > 0 for latent in latents])
    host, ours = (with_method(conditioning, method) for conditioning in (whole(prompt(kind), *latents), parts))
    expected = draw(MODELS[kind], kind, host, batch=2)
    assert torch.equal(draw(applied(kind), kind, ours, batch=2), expected)
    assert rel(draw(MODELS[kind], kind, prompt(kind), batch=2), expected) > 0.01, "and the references do something"
    assert torch.equal(draw_custom(applied(kind), kind, ours), draw_custom(MODELS[kind], kind, host))


class Hidden:
    """Attention in which the last keys are hidden from all queries, by an additive mask: what leaving tokens out must equal."""

    def __init__(self, kept):
        self.kept = kept

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        if "block_index" in kwargs["transformer_options"]:
            bias = torch.zeros(k.shape[-2])
            bias[-len(self.kept):][~self.kept] = -torch.inf
            assert not args or args[0] is None and not kwargs.get("mask")
            args, kwargs = (), {**kwargs, "mask": bias[None, None]}
        return attention(q, k, v, heads, *args, **kwargs)


def hiding(kind, kept):
    model = MODELS[kind].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = Hidden(kept)
    return model


def tokens(kind, shows):
    """Of a mask in latents whose tokens are as large as those of the model or smaller"""
    side = 1 if kind in ("flux2", "mage") else 2
    return shows[::side, ::side].flatten()


@each_kind
def test_tokens_left_out_equal_tokens_that_no_query_sees(kind):
    latents, masks = references(kind), (mask(6, 8, 4), mask(4, 4, 2))
    ours = with_parts(prompt(kind), latents, masks)
    kept = torch.cat([tokens(kind, each) for each in masks])
    expected = draw_custom(hiding(kind, kept), kind, whole(prompt(kind), *latents))
    result = draw_custom(applied(kind), kind, ours)
    assert rel(result, expected) < 5e-6
    assert rel(draw_custom(MODELS[kind], kind, whole(prompt(kind), *latents)), result) > 1e-3


@each_kind
def test_an_empty_mask_is_no_reference(kind):
    for method in METHODS[kind]:
        nothing = with_method(with_parts(prompt(kind), references(kind), [mask(6, 8, 0), mask(4, 4, 0)]), method)
        result, expected = draw_custom(applied(kind), kind, nothing), draw_custom(MODELS[kind], kind, prompt(kind))
        assert rel(result, expected) < 5e-6 if method == "index_timestep_zero" else torch.equal(result, expected)


@each_kind
def test_what_the_surroundings_show_changes_nothing(kind):
    first, second = references(kind)
    other = first.clone()
    other[..., :2, :] = 9
    one, two = (with_parts(prompt(kind), (latent, second), (mask(6, 8, 4), mask(4, 4, 2))) for latent in (first, other))
    assert torch.equal(draw(applied(kind), kind, one), draw(applied(kind), kind, two))


@each_kind
def test_references_of_other_nodes_stay_whole(kind):
    first, second = references(kind)
    before = with_parts(whole(prompt(kind), first), (second,), (mask(4, 4, 2),))
    after = whole(with_parts(prompt(kind), (second,), (mask(4, 4, 2),)), first)
    for conditioning, kept in (
        (before, torch.cat([tokens(kind, mask(6, 8, 6)), tokens(kind, mask(4, 4, 2))])),
        (after, torch.cat([tokens(kind, mask(4, 4, 2)), tokens(kind, mask(6, 8, 6))])),
    ):
        latents = conditioning[0][1]["reference_latents"]
        expected = draw_custom(hiding(kind, kept), kind, whole(prompt(kind), *latents))
        assert rel(draw_custom(applied(kind), kind, conditioning), expected) < 5e-6


@each_kind
def test_percents_are_of_the_sampling(kind):
    """References that act in neither step are none; in the first step alone the result is another than in both."""
    parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)))
    models = (applied(kind, start_percent=start, end_percent=end) for start, end in ((0.5, 0.5), (0.0, 0.2), (0.0, 1.0)))
    never, early, always = (draw_custom(model, kind, parts) for model in models)
    assert torch.equal(never, draw_custom(MODELS[kind], kind, prompt(kind)))
    assert rel(early, always) > 1e-4 < rel(early, never)


def test_applied_twice_it_acts_once_and_says_whose_percents_count(caplog):
    parts = with_parts(prompt("flux"), references("flux"), (mask(6, 8, 4), mask(4, 4, 2)), 2.0)
    twice = run("Parts2WholeApplyReferences", model=applied("flux"))
    assert torch.equal(draw(twice, "flux", parts), draw(applied("flux"), "flux", parts)) and not caplog.text
    other = run("Parts2WholeApplyReferences", model=applied("flux", end_percent=0.5), start_percent=0.5)
    assert caplog.text.count("the MODEL has an Apply Reference Parts already, whose percents no longer count") == 1
    assert torch.equal(draw(other, "flux", parts), draw(applied("flux", start_percent=0.5), "flux", parts))


@each_kind
def test_positive_and_negative_may_have_different_references(kind):
    first, second = references(kind)
    one, other = with_parts(prompt(kind), (first,), (mask(6, 8, 4),)), with_parts(prompt(kind, 1), (first,), (mask(6, 8, 2),))
    result = draw(applied(kind), kind, one, other, steps=1)
    positive, negative = (draw(applied(kind), kind, each, each, steps=1) for each in (one, other))
    # The last step ends at the prediction itself, so that guidance of 3 is a sum of both.
    assert rel(result, 3 * positive - 2 * negative) < 1e-5
    assert rel(result, draw(applied(kind), kind, one, with_parts(prompt(kind, 1), (first,), (mask(6, 8, 4),)), steps=1)) > 1e-4


@each_kind
def test_a_model_without_apply_and_the_input_model(kind):
    parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)))
    before = draw(MODELS[kind], kind, prompt(kind))
    options = str(MODELS[kind].model_options)
    draw(applied(kind), kind, parts)
    assert torch.equal(draw(MODELS[kind], kind, prompt(kind)), before) and str(MODELS[kind].model_options) == options
    with pytest.raises(ValueError, match="Connect Apply Reference Parts between the model loader and the sampler"):
        draw(MODELS[kind], kind, parts)


def test_a_model_that_leaves_its_references_out_says_so():
    """Krea 2 without a method, or of 0.26.0, which hands it latents of another shape; Qwen-Image of a ComfyUI before 0.20.1; and
    what another node does to Flux."""

    def without_references(executor, *args, **kwargs):
        return executor(*(None if isinstance(each, list) else each for each in args), **kwargs)

    flux = MODELS["flux"].clone()
    flux.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "another node", without_references)
    models = {kind: edit_model(kind) for kind in KINDS if exists(kind) and kind not in HERE}
    models |= {"flux": flux} | ({"krea2": edit_model("krea2", default_ref_method=None)} if "krea2" in HERE else {})
    for kind, model in models.items():
        parts = with_parts(prompt(kind), references(kind)[:1], (mask(6, 8, 4),))
        says = "left its reference latents out.*Edit Model Reference Method.*0.20.1 or newer"
        with pytest.raises(ValueError, match=says if kind in HERE else f"{says}|does not fit the reference latent"):
            draw(run("Parts2WholeApplyReferences", model=model), kind, parts)


@pytest.mark.skipif("krea2" not in HERE, reason="this ComfyUI's Krea 2 takes no references")
def test_each_conditioning_is_asked_whether_the_model_took_its_references():
    """Where only the positive one has Krea 2's method, the parts of the negative one would do nothing without a word."""
    model, parts = edit_model("krea2", default_ref_method=None), (references("krea2"), (mask(6, 8, 4), mask(4, 4, 2)))
    positive, negative = (with_parts(prompt("krea2", seed), *parts) for seed in (0, 1))
    positive = with_method(positive, "index")
    assert draw(run("Parts2WholeApplyReferences", model=model), "krea2", positive, with_method(negative, "index")).isfinite().all()
    with pytest.raises(ValueError, match="left its reference latents out.*Edit Model Reference Method"):
        draw(run("Parts2WholeApplyReferences", model=model), "krea2", positive, negative)


@each_kind
def test_a_node_that_takes_the_references_away_is_told(kind):
    model = applied(kind)
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(args["input"], args["timestep"], **{**args["c"], "ref_latents": None})
    )
    with pytest.raises(ValueError, match="The mask of 'part 0' does not fit the reference latent.*Put Reference Parts behind"):
        draw(model, kind, with_parts(prompt(kind), references(kind)[:1], (mask(6, 8, 4),)))


def test_models_that_take_no_references_are_refused(checkpoint):
    with pytest.raises(ValueError, match="The MODEL is a UNetModel.*use Encode Appearance and Apply Parts2Whole"):
        run("Parts2WholeApplyReferences", model=checkpoint.model)


HIDREAM = {
    "text_config_overrides": {
        "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16,
    },
    "vision_config_overrides": {
        "hidden_size": 32, "num_heads": 2, "intermediate_size": 32, "depth": 1, "num_position_embeddings": 16,
    },
}


@pytest.mark.parametrize("name, config", [
    ("JoyImage", {"image_model": "joyimage", "hidden_size": 32, "num_attention_heads": 2, "text_dim": 12, "num_layers": 1}),
    ("Lumina2", {
        "image_model": "lumina2", "dim": 32, "n_layers": 1, "n_refiner_layers": 1, "n_heads": 2, "cap_feat_dim": 12,
        "axes_dims": [4, 6, 6],
    }),
    ("Omnigen2", {
        "image_model": "omnigen2", "hidden_size": 32, "num_layers": 1, "num_refiner_layers": 1, "num_attention_heads": 2,
        "num_kv_heads": 1, "text_feat_dim": 12,
    }),
    ("HiDreamO1", {"image_model": "hidream_o1", **HIDREAM}),
])
def test_edit_models_whose_references_stand_elsewhere_are_refused(name, config):
    if hasattr(comfy.supported_models, name):  # in newer ComfyUIs
        model = build(name, config)
        network = type(model.model.diffusion_model).__name__
        with pytest.raises(ValueError, match=f"The MODEL is a {network}.*use its own nodes, without masks"):
            run("Parts2WholeApplyReferences", model=model)


def test_references_that_another_node_replaced_are_refused():
    kind = "flux"
    first, second = references(kind)
    parts = with_parts(prompt(kind), (first,), (mask(6, 8, 4),))
    [[text, values]] = parts
    for other in ([first + 1], [first.to("meta")], [first[..., :4]], []):
        with pytest.raises(ValueError, match="Another node replaced the reference latents.*'part 0'"):
            draw(applied(kind), kind, [[text, {**values, "reference_latents": other}]])


@each_kind
def test_a_vae_of_another_model_is_refused(kind):
    """Of Qwen-Image and Krea 2 some are taken without a word, and the picture is anything."""
    fits = references(kind)[0].shape
    for shape in ((1, 4, 6, 8), (1, 16, 6, 8), (1, 16, 1, 6, 8), (1, 128, 6, 8)):
        if shape != fits:
            parts = with_parts(prompt(kind), (torch.ones(shape),), (mask(6, 8, 4),))
            with pytest.raises(ValueError, match="The VAE of Reference Parts is another than the model's: 'part 0'"):
                draw(applied(kind), kind, parts)


def test_a_copied_conditioning_is_the_same():
    parts = with_parts(prompt("flux"), references("flux"), (mask(6, 8, 4), mask(4, 4, 2)), 2.0)
    assert torch.equal(draw(applied("flux"), "flux", copy.deepcopy(parts)), draw(applied("flux"), "flux", parts))
