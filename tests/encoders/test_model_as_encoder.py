"""Training-free use with other U-Nets: SD1.5, SD2.x and SDXL at toy width, built by the host's own model classes."""

import comfy.model_management
import comfy.model_patcher
import comfy.model_sampling
import comfy.sample
import comfy.supported_models
import pytest
import torch
from comfy.ldm.modules.diffusionmodules.util import timestep_embedding
from harness.workbench import apply_parts, encode, golden_parts, noise, picture, random_unet, rel, run, sample
from parts2whole.pictures.part import LabelledPart, make_part

COMMON = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 64, "num_head_channels": 32, "context_dim": 32,
    "use_spatial_transformer": True, "legacy": False,
}
SD = {
    **COMMON, "num_res_blocks": [2, 2, 2, 2], "channel_mult": [1, 2, 4, 4], "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
    "transformer_depth_output": [1] * 9 + [0] * 3, "transformer_depth_middle": 1, "adm_in_channels": None,
}
CONFIGS = {
    "SD15": {**SD, "use_linear_in_transformer": False},
    "SD20": {**SD, "use_linear_in_transformer": True},
    "SDXL": {
        **COMMON, "num_res_blocks": [2, 2, 2], "channel_mult": [1, 2, 4], "transformer_depth": [0, 0, 2, 2, 3, 3],
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 3, 3, 3], "transformer_depth_middle": 3,
        "adm_in_channels": 16 + 6 * 256, "use_linear_in_transformer": True, "num_classes": "sequential",
    },
}
SIZES = {"pooled_output": torch.zeros(1, 16), "width": 64, "height": 64}


@pytest.fixture(scope="module", params=CONFIGS)
def model(request):
    with torch.inference_mode():
        return random_unet(request.param, **CONFIGS[request.param])


def parts(count=2):
    return tuple(
        LabelledPart(make_part("face", picture(f"ref_{i}")), torch.randn(1, 77, 32), torch.randn(1, 16)) for i in range(count)
    )


def conditioning():
    return [[torch.randn(1, 77, 32), dict(SIZES)]]


def draw(model, clip, seed=0):
    torch.manual_seed(seed)
    return sample(model, clip, positive=conditioning(), negative=conditioning(), latent=noise(16, 12))


def test_any_unet_encodes_and_shares(model, checkpoint):
    encoder = run("Parts2WholeModelAsEncoder", model=model)
    appearance = encode(checkpoint._replace(appearance_encoder=encoder), parts(), 96, 128)
    assert {bank.tokens.shape[-1] for bank in appearance.references[0].banks.values()} <= {64, 128, 256}
    plain = draw(model, checkpoint.clip)
    assert rel(draw(apply_parts(model, appearance), checkpoint.clip), plain) > 1e-3
    assert torch.equal(draw(model, checkpoint.clip), plain)


def test_the_label_matters_and_so_does_the_noise_level(model, checkpoint):
    def bank(noise_level, parts):
        encoder = run("Parts2WholeModelAsEncoder", model=model, noise_level=noise_level)
        reference, = encode(checkpoint._replace(appearance_encoder=encoder), parts, 64, 64).references
        return list(reference.banks.values())[-1].tokens

    one = parts(1)
    clean = bank(0, one)
    assert torch.equal(bank(0, one), clean)
    assert rel(bank(0, parts(1)), clean) > 1e-3
    noised = bank(300, one)
    assert rel(noised, clean) > 1e-2
    assert torch.equal(bank(300, one), noised), "the noise is always the same"


def test_sdxl_asks_for_the_pooled_label(model, checkpoint):
    encoder = run("Parts2WholeModelAsEncoder", model=model)
    without = tuple(part._replace(pooled=None) for part in parts(1))
    if not model.model.adm_channels:
        encode(checkpoint._replace(appearance_encoder=encoder), without, 64, 64)
        return
    with pytest.raises(ValueError, match="needs the label's pooled text"):
        encode(checkpoint._replace(appearance_encoder=encoder), without, 64, 64)


def test_only_sdxl_sees_the_pooled_label(model, checkpoint):
    """The same text with another pooled vector: the banks differ where the U-Net takes it."""
    encoder = run("Parts2WholeModelAsEncoder", model=model)
    one = parts(1)
    other = tuple(part._replace(pooled=part.pooled + 1) for part in one)
    a, b = (
        list(encode(checkpoint._replace(appearance_encoder=encoder), each, 64, 64).references[0].banks.values())[-1].tokens
        for each in (one, other)
    )
    assert rel(a, b) > 1e-3 if model.model.adm_channels else torch.equal(a, b)


@pytest.mark.parametrize("model", ["SDXL"], indirect=True)
def test_sdxl_is_told_the_size_of_the_frame(model, checkpoint):
    """After the pooled text, its height comes first."""
    seen = []
    hook = model.model.diffusion_model.label_emb.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    encode(checkpoint._replace(appearance_encoder=run("Parts2WholeModelAsEncoder", model=model)), parts(1), 64, 128)
    hook.remove()
    sizes = seen[0][:, 16:].unflatten(1, (6, 256))
    assert torch.equal(sizes[:, :2], timestep_embedding(torch.tensor([128, 64]), 256)[None])


def test_an_appearance_of_another_architecture_is_refused(model, checkpoint):
    appearance = encode(checkpoint, golden_parts(checkpoint.clip, 1), 64, 64)
    expected = "The appearance of 'face' was made for a U-Net with 16 transformer blocks of widths 32, 64 and a text of width 32"
    with pytest.raises(ValueError, match=expected):
        apply_parts(model, appearance)


def test_the_patched_model_encodes_as_the_plain_one(checkpoint):
    """An encoder made of a model that has parts applied already does not look at those."""
    encoder = run("Parts2WholeModelAsEncoder", model=checkpoint.model)
    labelled = golden_parts(checkpoint.clip, 1)
    appearance = encode(checkpoint._replace(appearance_encoder=encoder), labelled, 64, 64)
    patched = run("Parts2WholeModelAsEncoder", model=apply_parts(checkpoint.model, appearance))
    again = encode(checkpoint._replace(appearance_encoder=patched), labelled, 64, 64)
    for address, bank in appearance.references[0].banks.items():
        assert torch.equal(again.references[0].banks[address].tokens, bank.tokens)


def test_a_model_without_unet_is_refused(checkpoint):
    config = comfy.supported_models.Flux({
        "image_model": "flux", "in_channels": 16, "out_channels": 16, "vec_in_dim": 16, "context_in_dim": 32, "hidden_size": 64,
        "mlp_ratio": 2.0, "num_heads": 2, "depth": 1, "depth_single_blocks": 1, "axes_dim": [4, 14, 14], "theta": 10000,
        "patch_size": 2, "qkv_bias": True, "guidance_embed": False, "txt_ids_dims": [],
    })
    config.set_inference_dtype(torch.float32, None)
    device = comfy.model_management.get_torch_device()
    model = comfy.model_patcher.ModelPatcher(config.get_model({}), load_device=device, offload_device=device)
    expected = "The MODEL is a Flux, which has no U-Net self-attention.*Expected a U-Net model: SD1.5"
    with pytest.raises(ValueError, match=expected):
        apply_parts(model, encode(checkpoint, golden_parts(checkpoint.clip, 1), 64, 64))
    with pytest.raises(ValueError, match=expected):
        run("Parts2WholeModelAsEncoder", model=model)
    with pytest.raises(ValueError, match="discrete noise schedule.*Use Basic Scheduler"):
        run("Parts2WholeSigmas", model=model, steps=4, denoise=1.0)


def test_an_inpainting_model_is_refused():
    model = random_unet("SD15", **{**CONFIGS["SD15"], "in_channels": 9})
    with pytest.raises(ValueError, match="takes 9 channels, not 4: an inpainting"):
        run("Parts2WholeModelAsEncoder", model=model)


def test_a_noise_schedule_without_timesteps_is_refused(checkpoint):
    model = run("ModelSamplingContinuousEDM", model=checkpoint.model, sampling="v_prediction", sigma_max=120.0, sigma_min=0.002)
    with pytest.raises(ValueError, match=r"noise schedule \(ModelSamplingContinuousEDM\) has no timesteps"):
        run("Parts2WholeModelAsEncoder", model=model)
    schedule = type("EDM", (comfy.model_sampling.ModelSamplingDiscreteEDM, comfy.model_sampling.EPS), {})
    model = checkpoint.model.clone()
    model.add_object_patch("model_sampling", schedule(checkpoint.model.model.model_config))
    with pytest.raises(ValueError, match=r"noise schedule \(ModelSamplingDiscreteEDM\) has no timesteps"):
        run("Parts2WholeModelAsEncoder", model=model)


def test_an_sd15_appearance_is_refused_by_sd2_though_all_layers_are_as_wide(checkpoint):
    sd15 = random_unet("SD15", **CONFIGS["SD15"])
    sd20 = random_unet("SD20", **{**CONFIGS["SD20"], "context_dim": 48})
    encoder = run("Parts2WholeModelAsEncoder", model=sd15)
    appearance = encode(checkpoint._replace(appearance_encoder=encoder), parts(1), 64, 64)
    with pytest.raises(ValueError, match="a text of width 32; the MODEL has .* a text of width 48"):
        apply_parts(sd20, appearance)


@pytest.mark.parametrize("other", [
    ("TomePatchModel", {"ratio": 0.3}), ("HyperTile", {"tile_size": 64, "swap_size": 1, "max_depth": 1, "scale_depth": False}),
], ids=lambda other: other[0])
def test_a_model_with_patches_that_move_tokens_about_encodes_as_the_plain_one_at_first(checkpoint, other):
    node, options = other
    labelled = golden_parts(checkpoint.clip, 1)
    plain, patched = (
        encode(checkpoint._replace(appearance_encoder=run("Parts2WholeModelAsEncoder", model=model)), labelled).references[0].banks
        for model in (checkpoint.model, run(node, model=checkpoint.model, **options))
    )
    first = ("input", 1, 0)
    assert torch.equal(plain[first].tokens, patched[first].tokens)
    assert all(plain[address].tokens.shape == patched[address].tokens.shape for address in plain)


def test_above_timestep_0_the_latent_is_noised_to_match_and_always_alike(checkpoint):
    seen, tiny = [], checkpoint.model
    hook = tiny.model.diffusion_model.register_forward_pre_hook(lambda unet, inputs: seen.append(inputs))
    for timestep in (0, 300):
        encoder = run("Parts2WholeModelAsEncoder", model=tiny, noise_level=timestep)
        encode(checkpoint._replace(appearance_encoder=encoder), golden_parts(checkpoint.clip, 1))
    hook.remove()
    (clean, first), (noised, second) = seen
    assert (first.tolist(), second.tolist()) == ([0.0], [300.0])
    sigma = tiny.get_model_object("model_sampling").sigma(second)
    noise_of_seed_0 = comfy.sample.prepare_noise(torch.zeros_like(clean), 0)
    assert rel(noised, (clean + sigma * noise_of_seed_0) / (1 + sigma**2) ** 0.5) < 1e-5
