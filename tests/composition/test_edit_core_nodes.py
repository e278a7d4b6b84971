"""Edit models with more of the host's own nodes: whole masks give the host's bytes, in both orders."""

import os
from pathlib import Path

import comfy.hooks
import pytest
import torch
from harness.edit_models import draw, edit_model, mask, prompt, references, some_latent, supported, whole, with_parts
from harness.host import load_core_nodes
from harness.workbench import rel, run

THERE = {path.stem for path in Path(os.environ["COMFYUI_PATH"], "comfy_extras").glob("nodes_*.py")}
load_core_nodes(*sorted({
    "nodes_apg", "nodes_custom_sampler", "nodes_easycache", "nodes_edit_model", "nodes_flux", "nodes_nag", "nodes_rope",
    "nodes_slg", "nodes_tcfg",
} & THERE))

HERE = [kind for kind in ("flux", "qwen") if supported(kind)]
MODELS = {kind: edit_model(kind) for kind in HERE}
EVERYTHING = torch.ones(6, 8) > 0, torch.ones(4, 4) > 0
SOME = mask(6, 8, 4), mask(4, 4, 2)
RANGE = {"start_percent": 0.0, "end_percent": 1.0}
NODES = {
    "APG": {"eta": 1.0, "norm_threshold": 5.0, "momentum": 0.1},
    "CFGZeroStar": {},
    "LazyCache": {"reuse_threshold": 3.0, "verbose": False, **RANGE},
    "NAGuidance": {"nag_scale": 5.0, "nag_alpha": 0.5, "nag_tau": 1.5},
    "RescaleCFG": {"multiplier": 0.7},
    "ScaleROPE": {"scale_x": 1.5, "shift_x": 0.5, "scale_y": 1.0, "shift_y": 0.0, "scale_t": 1.0, "shift_t": 0.0},
    "SkipLayerGuidanceDiT": {"double_layers": "0", "single_layers": "0", "scale": 3.0, "rescaling_scale": 0.0, **RANGE},
    "TCFG": {},
}
OF = {"APG": "nodes_apg", "LazyCache": "nodes_easycache", "NAGuidance": "nodes_nag", "ScaleROPE": "nodes_rope"}
each_kind = pytest.mark.parametrize("kind", HERE)


def apply(model):
    return run("Parts2WholeApplyReferences", model=model)


def parts(kind, seed=0, masks=EVERYTHING, **options):
    return with_parts(prompt(kind, seed), references(kind), masks, **options)


def hosts(kind, seed=0):
    return whole(prompt(kind, seed), *references(kind))


@each_kind
@pytest.mark.parametrize("node", [node for node in NODES if OF.get(node, "nodes_slg") in THERE])
def test_nodes_on_the_model(kind, node):
    def with_node(model):
        return run(node, model=model, **NODES[node])

    host = draw(with_node(MODELS[kind]), kind, hosts(kind), hosts(kind, 1), steps=3)
    some = [parts(kind, seed, SOME, strength=2.0, region=torch.rand(1, 6, 4)) for seed in (0, 1)]
    for both in (lambda: with_node(apply(MODELS[kind])), lambda: apply(with_node(MODELS[kind]))):
        assert torch.equal(draw(both(), kind, parts(kind), parts(kind, 1), steps=3), host)
        assert draw(both(), kind, *some, steps=3).isfinite().all()


@each_kind
@pytest.mark.parametrize("guider", ["DualCFGGuider", "PerpNegGuider"])
def test_guiders_with_three_conditionings(kind, guider):
    """And what is recorded is the positive one, wherever the guider puts it."""
    def drawn(model, positive, negative):
        given = {"cond1": positive, "cond2": prompt(kind, 3), "cfg_conds": 2.0, "cfg_cond2_negative": 3.0, "style": "regular"}
        if guider == "PerpNegGuider":
            given = {"positive": positive, "empty_conditioning": prompt(kind, 3), "cfg": 3.0, "neg_scale": 1.0}
        return run(
            "SamplerCustomAdvanced", noise=run("RandomNoise", noise_seed=0),
            guider=run(guider, model=model, negative=negative, **given),
            sampler=run("KSamplerSelect", sampler_name="euler_ancestral"),
            sigmas=run("BasicScheduler", model=model, scheduler="simple", steps=3, denoise=1.0),
            latent_image={"samples": some_latent(kind, 6, 4, seed=900)},
        )[0]["samples"]

    host = drawn(MODELS[kind], hosts(kind), hosts(kind, 1))
    assert torch.equal(drawn(apply(MODELS[kind]), parts(kind), parts(kind, 1)), host)
    model, attribution = run("Parts2WholeRecordAttribution", model=apply(MODELS[kind]))
    fewer = with_parts(prompt(kind, 1), references(kind)[:1], SOME[:1])
    maps = attribution.maps(drawn(model, parts(kind, masks=SOME), fewer))
    assert attribution.names[1:-1] == ("part 0", "part 1") and (maps.sum(1) - 1).abs().max() < 1e-4


@each_kind
def test_conditionings_that_take_turns(kind):
    def in_turn(first):
        return [
            each for conditioning, start, end in ((first, 0.0, 0.5), (prompt(kind, 2), 0.5, 1.0))
            for each in run("ConditioningSetTimestepRange", conditioning=conditioning, start=start, end=end)
        ]

    host = draw(MODELS[kind], kind, in_turn(hosts(kind)), steps=4)
    assert torch.equal(draw(apply(MODELS[kind]), kind, in_turn(parts(kind)), steps=4), host)
    assert rel(draw(MODELS[kind], kind, hosts(kind), steps=4), host) > 1e-3


@each_kind
def test_a_lora_of_one_conditioning(kind):
    generator, weights = torch.Generator().manual_seed(5), {}
    for name, weight in MODELS[kind].model.diffusion_model.state_dict().items():
        if name.endswith("weight") and weight.ndim == 2 and "block" in name:
            key = "diffusion_model." + name.removesuffix(".weight")
            weights[f"{key}.lora_up.weight"] = torch.randn(weight.shape[0], 2, generator=generator) * 0.3
            weights[f"{key}.lora_down.weight"] = torch.randn(2, weight.shape[1], generator=generator) * 0.3
    hooks = comfy.hooks.create_hook_lora(weights, 1.0, 0.0)

    def hooked(conditioning):
        return comfy.hooks.set_conds_props([conditioning], strength=1.0, set_cond_area="default", hooks=hooks)[0]

    host = draw(MODELS[kind], kind, hooked(hosts(kind)))
    assert torch.equal(draw(apply(MODELS[kind]), kind, hooked(parts(kind))), host)
    assert rel(draw(MODELS[kind], kind, hosts(kind)), host) > 1e-3


@each_kind
def test_weights_of_eight_bits(kind):
    small = edit_model(kind, torch.float8_e4m3fn)
    host = draw(small, kind, hosts(kind))
    assert torch.equal(draw(apply(small), kind, parts(kind)), host) and host.isfinite().all()
    assert draw(apply(small), kind, parts(kind, masks=SOME, strength=2.0)).isfinite().all()
