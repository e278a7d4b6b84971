"""What is computed in a run, on which copy of a model, and what is left of it after an error."""

import shutil

import comfy.controlnet
import comfy.hooks
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import safetensors.torch
import torch
from comfy.model_management import InterruptProcessingException
from comfy.model_patcher import ModelPatcher
from harness.host import GOLDEN
from harness.workbench import (
    apply_parts,
    apply_pose,
    encode,
    lora,
    noise,
    picture,
    rel,
    run,
    text,
    with_lora,
)
from parts2whole.encoders.checkpoint.load import load_pose_guider


@pytest.mark.slow  # to guard and trace takes a sixth of what all other tests take
def test_torch_compile(checkpoint, everything, draw):
    """Through the host's own wrapper; this backend compiles graphs and guards without generating code."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    model = everything(checkpoint.model)
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend=backend)
    assert rel(draw(compiled), draw(model)) < 1e-5
    before = len(graphs)
    draw(compiled, steps=4)
    assert before == len(graphs) > 0, "neither more steps nor another run need other graphs"


several_gpus = pytest.mark.skipif(not hasattr(ModelPatcher, "deepclone_multigpu"), reason="this ComfyUI knows no several GPUs")


def on_two_devices(model):
    """What the host does for several GPUs, each with a thread and a share of the conditionings; here both are the CPU, so
    that a tensor on the wrong one of them is not noticed."""
    copy = model.deepclone_multigpu(new_load_device=torch.device("cpu", 0))
    assert copy.model is not model.model
    copy.is_multigpu_base_clone = True
    both = model.clone()
    both.set_additional_models("multigpu", [copy])
    return both, copy


@several_gpus
def test_each_of_two_devices_has_its_own_of_all(checkpoint, everything, draw):
    model = everything(checkpoint.model)
    expected = draw(model)
    both, copy = on_two_devices(model)
    guiders = [patcher.get_additional_models_with_key("parts2whole")[0].model for patcher in (both, copy)]
    assert guiders[0] is not guiders[1]
    modules, calls = [both.model.diffusion_model, copy.model.diffusion_model, *guiders], []
    hooks = [module.register_forward_hook(lambda module, *_: calls.append(module)) for module in modules]
    result = draw(both)
    for hook in hooks:
        hook.remove()
    assert rel(result, expected) < 1e-5
    assert [calls.count(module) for module in modules] == [2, 2, 1, 1], "two steps, one pose"


@several_gpus
def test_each_of_two_pose_guiders_has_its_own_copy(checkpoint, draw, tmp_path):
    shutil.copytree(GOLDEN / "checkpoint" / "pose_guider", tmp_path / "pose_guider")
    (file,) = tmp_path.glob("pose_guider/*.safetensors")
    safetensors.torch.save_file({name: 3 * weight for name, weight in safetensors.torch.load_file(file).items()}, file)
    first, second = checkpoint.pose_guider, load_pose_guider(str(tmp_path))
    model, twice = (apply_pose(apply_pose(checkpoint.model, first), guider) for guider in (second, first))
    expected = draw(model)
    assert rel(draw(twice), expected) > 0.01
    both, copy = on_two_devices(model)
    assert len(copy.get_additional_models_with_key("parts2whole")) == 2
    assert rel(draw(both), expected) < 1e-5


@several_gpus
def test_the_attribution_of_conditionings_on_two_devices(checkpoint, appearance, draw):
    positive = [*text(checkpoint.clip, "a person"), *text(checkpoint.clip, "a portrait"), *text(checkpoint.clip, "a photo")]
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    expected = attribution.maps(draw(model, positive=positive))
    both, _ = on_two_devices(model)
    assert rel(attribution.maps(draw(both, positive=positive)), expected) < 1e-5


@pytest.mark.parametrize("from_the_start", [True, False])
def test_weights_that_the_host_unloads_and_loads_during_a_run(checkpoint, everything, draw, from_the_start):
    """As it does where memory is short: a LoRA is then in the weights, or added to each as it is used."""
    model = with_lora(everything(checkpoint.model))
    expected = draw(model, steps=4)
    calls = []

    def move(apply_model, args):
        patcher, device = model.model.current_patcher, model.load_device
        calls.append(1)
        if len(calls) == (1 if from_the_start else 2):
            assert patcher.partially_unload(device, 1e12) > 0 and model.model.model_lowvram
        elif len(calls) == 3:
            patcher.partially_load(device, 1e12)
            assert not model.model.model_lowvram
        return apply_model(args["input"], args["timestep"], **args["c"])

    moved = model.clone()
    moved.set_model_unet_function_wrapper(move)
    assert rel(draw(moved, steps=4), expected) < 1e-5
    assert len(calls) == 4 and rel(draw(everything(checkpoint.model), steps=4), expected) > 0.01


def test_everything_is_computed_once_for_a_run(checkpoint, everything, draw, monkeypatch):
    import sys

    patch = sys.modules["parts2whole.attention.patch.step"]
    counts = {"project_references": 0, "encode_pose": 0}

    def count(name):
        original = getattr(patch, name)

        def counted(*args):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(patch, name, counted)

    count("project_references")
    count("encode_pose")
    model = everything(checkpoint.model)
    draw(model, steps=5)
    assert counts == {"project_references": 16, "encode_pose": 1}, "one set of keys for each of 16 layers, one pose"
    draw(model, steps=5)
    assert counts == {"project_references": 32, "encode_pose": 2}, "and again in the next run: nothing outlives one"

    counts.update(project_references=0, encode_pose=0)
    hooks = comfy.hooks.create_hook_lora(lora(model), 1.0, 0.0)
    conds = {
        name: run("ConditioningSetProperties", cond_NEW=text(checkpoint.clip, prompt), strength=1.0, set_cond_area="default",
                  hooks=hooks)
        for name, prompt in (("positive", "a person"), ("negative", ""))
    }
    draw(model, steps=5, **conds)
    assert counts == {"project_references": 16, "encode_pose": 1}, "weight hooks that stay the same are no exception"

    counts.update(project_references=0)
    draw(model, steps=5, positive=conds["positive"])
    assert counts["project_references"] == 16, "the negative conditioning's weights, without the hook, need no references"


def test_only_the_poses_that_are_needed_are_encoded(checkpoint, draw, monkeypatch):
    import sys

    patch = sys.modules["parts2whole.attention.patch.step"]
    encoded = []
    original = patch.encode_pose
    monkeypatch.setattr(patch, "encode_pose", lambda *args: encoded.append(len(args[1])) or original(*args))
    draw(apply_pose(checkpoint.model, checkpoint.pose_guider, picture("pose").expand(8, -1, -1, -1)), latent=noise(batch=2))
    assert sum(encoded) == 2


def test_chained_poses_load_the_guider_once(checkpoint, draw):
    twice = apply_pose(apply_pose(checkpoint.model, checkpoint.pose_guider, strength=0.5), checkpoint.pose_guider, strength=0.5)
    assert len(twice.get_additional_models()) == 1
    assert rel(draw(twice), draw(apply_pose(checkpoint.model, checkpoint.pose_guider))) < 1e-5


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

    checkpoint.appearance_encoder.encoded.clear()
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(InterruptProcessingException):
        encode(checkpoint, parts)
    again = encode(checkpoint, parts)
    assert torch.equal(again.references[0].banks[("middle", 0, 0)].tokens, appearance.references[0].banks[("middle", 0, 0)].tokens)
