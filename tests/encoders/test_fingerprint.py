"""Whatever changes what an encoder computes changes its fingerprint: what other nodes add to a MODEL beside weights."""

from functools import partial

import comfy.hooks
import comfy.patcher_extension
import comfy.sd
import pytest
import torch
from harness.workbench import encode, golden_parts, lora, rel, run, with_lora
from parts2whole.encoders.fingerprint import ONLY_THIS_RUN, fingerprint

BLOCK = "diffusion_model.input_blocks.1.1.transformer_blocks.0"


def bypass_lora(model, strength=1.0):
    return comfy.sd.load_bypass_lora_for_models(model, None, lora(model), strength, 0.0)[0]


def injected(model, scale=2.0):
    patched = model.clone()
    norm = patched.model.get_submodule(f"{BLOCK}.norm1")

    def inject(patcher):
        norm.forward = lambda x: type(norm).forward(norm, x) * scale

    def eject(patcher):
        del norm.forward

    patched.set_injections("other", [comfy.patcher_extension.PatcherInjection(inject, eject)])
    return patched


def with_object(model, scale=2.0):
    patched = model.clone()
    norm = torch.nn.LayerNorm(32)
    norm.weight.data *= scale
    patched.add_object_patch(f"{BLOCK}.norm1", norm)
    return patched


def with_wrapped_weight(model, scale=2.0):
    patched = model.clone()
    patched.add_weight_wrapper(f"{BLOCK}.attn2.to_v.weight", lambda weight: weight * scale)
    return patched


def with_forced_hook(model, strength=1.0):
    patched = model.clone()
    hook = comfy.hooks.WeightHook(strength_model=strength)
    hook.weights = lora(model)
    group = comfy.hooks.HookGroup()
    group.add(hook)
    patched.register_all_hook_patches(group, comfy.hooks.create_target_dict(comfy.hooks.EnumWeightTarget.Model))
    patched.forced_hooks = group
    return patched


def with_attention_patch(model, scale=2.0):
    patched = model.clone()
    patched.set_model_attn2_patch(lambda q, k, v, extra_options: (q, k * scale, v * scale))
    return patched


def with_block_patch(model, scale=2.0):
    patched = model.clone()
    patched.set_model_output_block_patch(lambda h, skip, options: (h * scale, skip))
    return patched


class Scale:
    """A patch that is an object, of which nothing tells what it does."""

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, q, k, v, extra_options):
        return q, k * self.scale, v * self.scale


def with_opaque_patch(model, scale=2.0):
    patched = model.clone()
    patched.set_model_attn2_patch(Scale(scale))
    return patched


def merged(model, ratio=0.5):
    other = run("Parts2WholeLoader", checkpoint="tiny")[0]
    torch.manual_seed(1)
    other.model.diffusion_model.input_blocks[1][1].transformer_blocks[0].attn2.to_v.weight.data.normal_()
    return run("ModelMergeSimple", model1=model, model2=other, ratio=ratio)


def with_alpha(model, alpha=1.0):
    weights = lora(model)
    names = [name for name in weights if "lora_up" in name]
    weights |= {name.replace("lora_up.weight", "alpha"): torch.tensor(alpha) for name in names}
    return comfy.sd.load_lora_for_models(model, None, weights, 1.0, 0.0)[0]


BY_VALUE = {
    bypass_lora: 0.5, injected: 3.0, with_object: 3.0, with_wrapped_weight: 3.0, with_forced_hook: 0.5, with_attention_patch: 3.0,
    with_block_patch: 3.0, merged: 0.2, with_alpha: 8.0,
}


def banks(model, checkpoint):
    encoder = run("Parts2WholeModelAsEncoder", model=model)
    appearance = encode(checkpoint._replace(appearance_encoder=encoder), golden_parts(checkpoint.clip, 1), 64, 64)
    return torch.cat([bank.tokens.flatten() for bank in appearance.references[0].banks.values()]), encoder.fingerprint


@pytest.mark.parametrize("change, other", BY_VALUE.items(), ids=lambda value: getattr(value, "__name__", value))
def test_what_changes_the_features_changes_the_fingerprint(checkpoint, change, other):
    models = checkpoint.model, change(checkpoint.model), change(checkpoint.model, other)
    (plain, its), (changed, one), (stronger, two) = (banks(model, checkpoint) for model in models)
    assert rel(changed, plain) > 1e-4 and rel(stronger, changed) > 1e-4, "they compute something else"
    assert len({its, one, two}) == 3
    assert fingerprint(change(checkpoint.model)) == fingerprint(models[1]), "the same again, also where it was in use"
    assert fingerprint(checkpoint.model) + "-0" == its and ONLY_THIS_RUN not in one


def test_a_patch_without_a_value_counts_as_itself(checkpoint, caplog, tmp_path, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    model = with_opaque_patch(checkpoint.model)
    assert fingerprint(model) == fingerprint(model.clone()) != fingerprint(checkpoint.model)
    assert fingerprint(model) != fingerprint(with_opaque_patch(checkpoint.model))
    assert fingerprint(model).endswith(ONLY_THIS_RUN)

    encoder = run("Parts2WholeModelAsEncoder", model=model)
    appearance = encode(checkpoint._replace(appearance_encoder=encoder), golden_parts(checkpoint.clip, 1), 64, 64)
    run("Parts2WholeSaveAppearance", appearance=appearance, filename_prefix="wardrobe/outfit")
    assert "is not recognised after ComfyUI is started again" in caplog.text
    load = partial(run, "Parts2WholeLoadAppearance", file="outfit_00001_.safetensors")
    assert load(appearance_encoder=encoder).references
    for other in (checkpoint.model, with_opaque_patch(checkpoint.model)):
        with pytest.raises(ValueError, match="was encoded by another appearance encoder"):
            load(appearance_encoder=run("Parts2WholeModelAsEncoder", model=other))


def test_what_does_not_act_on_the_encoder_does_not_count(checkpoint, everything):
    plain = fingerprint(checkpoint.model)
    assert fingerprint(everything(checkpoint.model)) == plain
    assert fingerprint(run("PerpNeg", model=checkpoint.model, empty_conditioning=[], neg_scale=1.0)) == plain
    assert fingerprint(run("RescaleCFG", model=checkpoint.model, multiplier=0.7)) == plain


def test_the_noise_schedule_counts_where_the_encoder_adds_noise(checkpoint):
    zsnr = run("ModelSamplingDiscrete", model=checkpoint.model, sampling="eps", zsnr=True)

    def its(model, noise_level):
        return run("Parts2WholeModelAsEncoder", model=model, noise_level=noise_level).fingerprint

    assert its(zsnr, 0) == its(checkpoint.model, 0)
    assert its(zsnr, 900) != its(checkpoint.model, 900)


def test_fingerprints_of_plain_models_and_loras_stay_as_saved_appearances_have_them(checkpoint):
    assert fingerprint(checkpoint.model) == "e3827d9835762b86"
    assert fingerprint(with_lora(checkpoint.model)) == "36150b256bad40fa"
