"""Habits of other nodes that made ours fail or fall silent: stand-ins that do the same, and nothing else."""

import copy

import comfy.model_management
import comfy.sampler_helpers
import pytest
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from comfy.patcher_extension import WrappersMP
from harness.workbench import apply_parts, apply_pose, noise, picture, rel, run

BLOCK = "diffusion_model.input_blocks.1.1.transformer_blocks.0"


def test_a_model_that_is_never_called_is_warned_of(checkpoint, everything, draw, caplog):
    """A cache that answers in the model's place."""
    model = everything(checkpoint.model)
    cached = model.clone()
    cached.set_model_unet_function_wrapper(lambda apply_model, args: torch.zeros_like(args["input"]))
    draw(cached)
    assert caplog.text.count("the run ended without a call of the U-Net that reached parts, pose and image tokens") == 1
    caplog.clear()
    draw(model)
    assert "the run ended without" not in caplog.text


def test_options_are_copied_deep_in_every_step(checkpoint, everything, appearance, draw):
    def copied(model):
        model = model.clone()

        def pre_cfg(args):
            copy.deepcopy(args["model_options"])
            return args["conds_out"]

        def around(executor, x, t, context, y, control, options, **kwargs):
            return executor(x, t, context, y, control, copy.deepcopy(options), **kwargs)

        model.set_model_sampler_pre_cfg_function(pre_cfg)
        model.add_wrapper(WrappersMP.DIFFUSION_MODEL, around)
        model.model_options = copy.deepcopy(model.model_options)
        return model

    model = everything(checkpoint.model)
    assert torch.equal(draw(copied(model)), draw(model))
    recorded, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    assert len(attribution.maps(draw(copied(recorded)))) == 1, "the copy's attribution is the one that the node gave"


@pytest.mark.parametrize("kind", ["outer_sample", "sampler_sample", "calc_cond_batch", "apply_model", "prepare_sampling"])
def test_a_node_that_replaces_the_patchers_wrappers(checkpoint, everything, draw, kind):
    model = everything(checkpoint.model)
    updated = model.clone()
    updated.wrappers.update({kind: {"other": [lambda executor, *args, **kwargs: executor(*args, **kwargs)]}})
    assert torch.equal(draw(updated), draw(model))


@pytest.mark.parametrize("kind", [WrappersMP.OUTER_SAMPLE, WrappersMP.SAMPLER_SAMPLE, WrappersMP.CALC_COND_BATCH])
def test_wrappers_that_are_lost_all_the_same(checkpoint, everything, draw, kind):
    """What the wrapper would have told is told by the batch itself, as far as it goes; never a KeyError."""
    model = everything(checkpoint.model)
    lost = model.clone()
    lost.model_options["transformer_options"]["wrappers"] = {
        name: keys for name, keys in lost.model_options["transformer_options"]["wrappers"].items() if name != kind
    }
    assert rel(draw(lost), draw(model)) < 1e-6


def with_options(model, change, replacements=("attn1", "attn2")):
    """A node that calls the replacements of the attention itself, with options of its own."""
    def around(executor, x, t, context, y, control, options, **kwargs):
        replace = {
            name: {key: (lambda q, k, v, o, function=function: function(q, k, v, change(o))) for key, function in blocks.items()}
            for name, blocks in options["patches_replace"].items() if name in replacements
        }
        options = {**options, "patches_replace": {**options["patches_replace"], **replace}}
        return executor(x, t, context, y, control, options, **kwargs)

    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, around)
    return model


NAMES = ["attn_precision", "n_heads", "dim_head", "activations_shape", "block", "uuids", "cond_or_uncond"]


@pytest.mark.parametrize("left_out", [*NAMES, "all"])
def test_options_that_lack_something(checkpoint, everything, draw, left_out):
    def change(options):
        return {} if left_out == "all" else {key: value for key, value in options.items() if key != left_out}

    model = everything(checkpoint.model)
    assert rel(draw(with_options(model, change)), draw(model)) < 1e-6


def test_regions_where_the_shape_of_the_layer_is_not_told(checkpoint, appearance, draw):
    region = torch.zeros(1, 192, 128)
    region[:, :, :64] = 1
    model = apply_parts(checkpoint.model, appearance, region=region)
    bare = with_options(model, lambda options: {key: value for key, value in options.items() if key != "activations_shape"})
    latent = noise(20, 12)  # of which the U-Net makes 3 rows of 5
    assert rel(draw(bare, latent=latent), draw(model, latent=latent)) < 1e-6


def test_the_pose_where_the_block_is_not_told(checkpoint, draw):
    def around(executor, x, t, context, y, control, options, **kwargs):
        patches = {**options["patches"], "input_block_patch": [
            lambda h, o, patch=patch: patch(h, {key: value for key, value in o.items() if key != "block"})
            for patch in options["patches"]["input_block_patch"]
        ]}
        return executor(x, t, context, y, control, {**options, "patches": patches}, **kwargs)

    model = apply_pose(checkpoint.model, checkpoint.pose_guider)
    bare = model.clone()
    bare.add_wrapper(WrappersMP.DIFFUSION_MODEL, around)
    assert torch.equal(draw(bare), draw(model))


def test_a_first_convolution_of_another_size_is_refused(checkpoint, draw):
    model = checkpoint.model.clone()
    model.set_model_input_block_patch(lambda h, options: h[:, :, ::2] if options["block"] == ("input", 0) else h)
    with pytest.raises(ValueError, match=r"\[32, 12, 16\] channels, rows and columns, where the pose has \[32, 24, 16\]"):
        draw(apply_pose(model, checkpoint.pose_guider))


def test_a_replacement_that_is_called_again_for_unconditional_rows(checkpoint, appearance, draw):
    """A reference-only control: what the unconditional rows get the second time is what they got the first time."""
    seen = []

    def around(executor, x, t, context, y, control, options, **kwargs):
        def twice(function):
            def call(q, k, v, o):
                out = function(q, k, v, o)
                rows = [i for i in range(len(q)) if o["cond_or_uncond"][i * len(o["cond_or_uncond"]) // len(q)] == 1]
                again = function(q[rows], k[rows], v[rows], {**o, "ref_uncond_idxs": rows})
                seen.append(rel(again, out[rows]))
                return out
            return call

        replace = {"attn1": {key: twice(function) for key, function in options["patches_replace"]["attn1"].items()}}
        return executor(x, t, context, y, control, {**options, "patches_replace": replace}, **kwargs)

    model = apply_parts(checkpoint.model, appearance)
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, around)
    draw(model, latent=noise(batch=3), steps=1)
    assert len(seen) == 16 and max(seen) < 1e-5


class Fused(torch.nn.Module):
    """An attention layer with one projection for queries, keys and values."""

    def __init__(self, attention):
        super().__init__()
        self.heads, self.to_out = attention.heads, attention.to_out
        self.weight = torch.nn.Parameter(torch.cat([attention.to_q.weight, attention.to_k.weight, attention.to_v.weight]))

    def forward(self, x, context=None, value=None, mask=None, transformer_options=None):
        q, k, v = (x @ self.weight.T).chunk(3, -1)
        return self.to_out(optimized_attention(q, k, v, self.heads))


def fused(model):
    model = model.clone()
    model.add_object_patch(f"{BLOCK}.attn1", Fused(model.model.get_submodule(f"{BLOCK}.attn1")))
    return model


def test_attention_without_projections_is_named(checkpoint, appearance, draw):
    with pytest.raises(ValueError, match="attention of block input 1, 0 is a Fused without to_k, to_v and heads.*remove the node"):
        apply_parts(fused(checkpoint.model), appearance)
    with pytest.raises(ValueError, match="attention of block input 1, 0 is a Fused"):
        draw(fused(apply_parts(checkpoint.model, appearance)))
    assert torch.isfinite(draw(apply_parts(checkpoint.model, appearance))).all(), "and nothing is left of it"


def test_another_branchs_object_patches_do_not_matter(checkpoint, appearance, draw):
    expected = draw(apply_parts(checkpoint.model, appearance))
    other = fused(checkpoint.model)
    comfy.model_management.load_models_gpu([other])
    assert isinstance(checkpoint.model.model.get_submodule(f"{BLOCK}.attn1"), Fused), "the other branch is loaded"
    model = apply_parts(checkpoint.model, appearance)
    assert torch.equal(draw(model), expected)


def test_a_unet_of_another_class(checkpoint, appearance, draw):
    """Told by what it has, not by its class."""
    expected = draw(apply_parts(checkpoint.model, appearance))
    unet = checkpoint.model.model.diffusion_model
    methods = {name: value for name, value in vars(UNetModel).items() if name not in ("__dict__", "__weakref__", "__init__")}
    unet.__class__ = type("ReUNetModel", (torch.nn.Module,), methods)
    try:
        assert not isinstance(unet, UNetModel)
        assert torch.equal(draw(apply_parts(checkpoint.model, appearance)), expected)
    finally:
        unet.__class__ = UNetModel
    broken = torch.nn.Linear(1, 1)
    unet, checkpoint.model.model.diffusion_model = checkpoint.model.model.diffusion_model, broken
    try:
        with pytest.raises(ValueError, match="The MODEL is a Linear, which has no U-Net self-attention"):
            apply_parts(checkpoint.model, appearance)
    finally:
        checkpoint.model.model.diffusion_model = unet


def planned_for(model, draw, monkeypatch):
    """What the host makes free in memory, at its least, before it samples."""
    planned = []
    load = comfy.model_management.load_models_gpu

    def seen(models, memory_required=0, minimum_memory_required=None, **options):
        planned.append(minimum_memory_required or 0)
        return load(models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **options)

    with monkeypatch.context() as patch:
        patch.setattr(comfy.model_management, "load_models_gpu", seen)
        draw(model, steps=1)
    return max(planned)


def keys_and_values(model, draw) -> int:
    """Bytes of what the attention gets of the references."""
    found = []

    def keep(executor, *args, **kwargs):
        for patch in args[5]["patches_replace"]["attn1"].values():
            found.append(patch.references.k.nbytes + patch.references.v.nbytes)
        return executor(*args, **kwargs)

    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, keep)
    draw(model, steps=1)
    return sum(found)


@pytest.mark.parametrize("regions", [0, 1, 2])
def test_the_host_plans_for_what_the_heads_carry_too(checkpoint, appearance, draw, monkeypatch, regions):
    region = torch.ones(1, 8, 8)
    model = apply_parts(checkpoint.model, appearance, **({"region": region} if regions else {}))
    if regions == 2:
        model = apply_parts(model, appearance, region=region)
    planned = planned_for(model, draw, monkeypatch) - planned_for(checkpoint.model, draw, monkeypatch)
    assert planned == pytest.approx(keys_and_values(model, draw), rel=0.02), "null keys are few"


def test_the_host_plans_for_the_references(checkpoint, appearance, draw, monkeypatch):
    """By as much as their keys and values take, which one more latent would not."""
    planned = []
    load = comfy.model_management.load_models_gpu

    def seen(models, memory_required=0, minimum_memory_required=None, **options):
        planned.append((memory_required, minimum_memory_required))
        return load(models, memory_required=memory_required, minimum_memory_required=minimum_memory_required, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", seen)

    def plan(model):
        planned.clear()
        latents = draw(model, steps=1)
        return max(plan for plan in planned if plan[1] is not None), latents

    (most, least), latents = plan(apply_parts(checkpoint.model, appearance))
    (plain_most, plain_least), _ = plan(checkpoint.model)
    kept = sum(bank.tokens.numel() for reference in appearance.references for bank in reference.banks.values())
    assert least - plain_least == pytest.approx(2 * kept * 4)
    assert most - plain_most == pytest.approx(2 * (least - plain_least)), "the host counts both halves"
    assert torch.isfinite(latents).all()


def test_the_host_plans_for_the_poses(checkpoint, draw, monkeypatch):
    planned = []
    prepare = comfy.sampler_helpers.estimate_memory

    def seen(model, noise_shape, conds):
        planned.append(prepare(model, noise_shape, conds)[0])
        return prepare(model, noise_shape, conds)

    monkeypatch.setattr(comfy.sampler_helpers, "estimate_memory", seen)
    poses = torch.cat([picture("pose").roll(turn, 2) for turn in (0, 40, 80)])
    for model in (checkpoint.model, apply_pose(checkpoint.model, checkpoint.pose_guider, poses)):
        draw(model, steps=1, latent=noise(batch=2))
    channels = checkpoint.pose_guider.model.conv_out.weight.shape[0]
    each = channels * 24 * 16 * 4
    assert planned[1] - planned[0] == pytest.approx(2 * 2 * each), "for two of the three poses, and the host counts both halves"


def test_a_model_that_asks_the_host_to_plan_nothing(checkpoint, appearance, draw, monkeypatch):
    """As nodes do that keep a batch in one piece."""
    expected = draw(apply_parts(checkpoint.model, appearance))
    monkeypatch.setattr(checkpoint.model.model, "memory_usage_factor", 0)
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance)), expected)


def test_a_merge_with_ours_as_the_second_model_loses_it(checkpoint, appearance, draw):
    """The host's way, which the help page tells: options come from the first model."""
    ours = apply_parts(checkpoint.model, appearance)
    merged = run("ModelMergeSimple", model1=checkpoint.model, model2=ours, ratio=1.0)
    assert rel(draw(merged), draw(checkpoint.model)) < 1e-6
    assert rel(draw(run("ModelMergeSimple", model1=ours, model2=checkpoint.model, ratio=1.0)), draw(ours)) < 1e-6
