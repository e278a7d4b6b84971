"""The numbers of the original code, through the nodes and the host's sampler, in float32."""

import functools
import re

import pytest
import torch
from harness.workbench import (
    LATENT_SCALE,
    REFERENCES,
    apply_image_attention,
    apply_parts,
    apply_pose,
    golden,
    golden_parts,
    picture,
    rel,
    run,
    sample,
    text,
)
from parts2whole.attention.bank import Appearance, BlockAddress
from parts2whole.attention.patch.host.unet import diffusers_block_names
from parts2whole.attention.reference_mask import token_mask
from parts2whole.encoders.image_tokens import _crop_square, image_tokens
from parts2whole.pictures.frame import fit_to_frame
from parts2whole.pictures.part import make_part

SIZES = {"16x16": (16, 16), "24x16": (24, 16), "20x12": (20, 12)}
TEXTS = ("face", "upper body clothes", "shoes", "a person, realistic", "", "blurry, low quality")

UNET = golden("unet")
EPS = [name for name in UNET if "/eps/" in name and "_concat" not in name]
E2E = golden("e2e")


def encode(checkpoint, parts, size):
    height, width = SIZES[size]
    return run(
        "Parts2WholeEncodeAppearance", appearance_encoder=checkpoint.appearance_encoder, vae=checkpoint.vae, parts=parts,
        width=width * 8, height=height * 8,
    )


def scatter(bank, mask, grid):
    """The bank as the original keeps it: [T, C] with zero rows outside the mask."""
    kept = token_mask(mask, grid) > 0
    full = torch.zeros(kept.shape[0], bank.tokens.shape[1])
    full[kept] = bank.tokens
    assert bank.removed == int((~kept).sum())
    return full


def grids(checkpoint, height, width):
    """The token grid of every block: halved, rounding up, at every downsampling."""
    grid, out = {}, {}
    for name, address in diffusers_block_names(checkpoint.model.model.model_config.unet_config).items():
        level = 3 if name.startswith("mid") else int(name.split(".")[1])
        level = 3 - level if name.startswith("up") else level
        grid[level] = (-(-height // 2**level), -(-width // 2**level))
        out[name] = address, grid[level]
    return out


@pytest.mark.parametrize("index", range(6))
def test_text_embedding(checkpoint, index):
    embedding = text(checkpoint.clip, TEXTS[index])[0][0]
    assert rel(embedding, golden("text")[f"text_{index}/embedding"]) < 1e-5


def test_noise_schedule(checkpoint):
    sigmas = checkpoint.model.get_model_object("model_sampling").sigmas
    assert torch.allclose(1 / (1 + sigmas**2), golden("schedule")["alphas_cumprod"], rtol=1e-5, atol=0)


@pytest.mark.parametrize("steps", [4, 10, 50])
def test_sigmas_are_the_ddim_timesteps_with_the_last_alpha(checkpoint, steps):
    sigmas = run("Parts2WholeSigmas", model=checkpoint.model, steps=steps, denoise=1.0)
    expected = golden("schedule")[f"timesteps_{steps}"].tolist() + [0]
    assert checkpoint.model.get_model_object("model_sampling").timestep(sigmas).tolist() == expected


def test_no_denoising_takes_no_step(checkpoint):
    assert len(run("Parts2WholeSigmas", model=checkpoint.model, steps=4, denoise=0.0)) == 0


@pytest.mark.parametrize("index", range(3))
def test_preprocessing(checkpoint, index):
    """The same filter on the same 8 bits as the release: the pictures are equal, not merely close."""
    data = golden("preprocess")
    label, image, mask = REFERENCES[index]
    pixels, fitted_mask = fit_to_frame(make_part(label, picture(image), picture(mask) if mask else None), 128, 192)
    assert (pixels.movedim(-1, 1) * 2 - 1 - data[f"ref{index}/pixels"]).abs().max() < 1e-6
    assert (fitted_mask[:, None] - data[f"ref{index}/mask"]).abs().max() < 1e-6


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("index", range(3))
def test_token_masks(size, index):
    data = golden("preprocess")
    mask = UNET[f"{size}/ref{index}/mask_uint8"][0, 0].float() / 255
    names = [name for name in data if name.startswith(f"mask_levels/{size}/ref{index}/") and name.endswith("dilated")]
    assert len(names) == 4
    for name in names:
        assert (token_mask(mask, tuple(data[name].shape[2:])) - data[name].flatten()).abs().max() < 1e-6


def test_clip_image_embeddings(checkpoint):
    data = golden("preprocess")
    tokens = image_tokens(checkpoint.clip_vision, golden_parts(checkpoint.clip, 3))
    for index in range(3):
        assert rel(tokens[:, index:index + 1], data[f"ref{index}/clip_embed"]) < 1e-5
    assert not tokens[:, 3:].any()


def test_clip_pixels():
    mean, std = (torch.tensor(x)[:, None, None] for x in (
        (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    ))
    pixels = _crop_square(picture("ref_1")[0], 224).movedim(-1, 1)
    assert ((pixels - mean) / std - golden("preprocess")["clip_pixel_values"]).abs().max() < 1e-5


@pytest.mark.parametrize("size", SIZES)
def test_pose_features(checkpoint, size):
    from parts2whole.attention.patch.pose import encode_pose

    features = encode_pose(checkpoint.pose_guider.model, picture("pose"), SIZES[size], torch.device("cpu"))
    assert rel(features, UNET[f"{size}/pose_features"]) < 1e-5


@pytest.mark.parametrize("mask", ["partial", "full"])
@pytest.mark.parametrize("label", ["text", "embedding"])
def test_banks_of_one_reference(checkpoint, label, mask):
    data = golden("appearance")
    part_mask = data[f"mask_{mask}"][0, 0]
    part = run("Parts2WholeMakePart", image=picture("ref_0"), label="face", mask=part_mask[None])
    (labelled,) = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={"part0": part})
    if label == "embedding":
        labelled = labelled._replace(text_embedding=data["label_given_embedding"])
    (reference,) = encode(checkpoint, (labelled,), "16x16").references
    for name, (address, grid) in grids(checkpoint, 16, 16).items():
        expected = data[f"{label}_{mask}/bank/{name}"]
        assert rel(scatter(reference.banks[address], part_mask, grid), expected) <= 5e-5, name


@pytest.mark.parametrize("size", SIZES)
def test_banks_of_three_references(checkpoint, size):
    references = encode(checkpoint, golden_parts(checkpoint.clip, 3), size).references
    for index, reference in enumerate(references):
        mask = UNET[f"{size}/ref{index}/mask_uint8"][0, 0].float() / 255
        for name, (address, grid) in grids(checkpoint, *SIZES[size]).items():
            expected = UNET[f"{size}/ref{index}/bank/{name}"]
            assert rel(scatter(reference.banks[address], mask, grid), expected) <= 5e-5, (index, name)


@functools.cache  # many numbers are of one graph
def wire(checkpoint, count, pose, decoupled, size):
    """The whole graph of the release around the model."""
    model = checkpoint.model
    if count:
        parts = golden_parts(checkpoint.clip, count)
        model = apply_parts(model, encode(checkpoint, parts, size))
        if decoupled:  # without references all image tokens are zero and add nothing
            model = apply_image_attention(model, checkpoint, parts)
    return apply_pose(model, checkpoint.pose_guider) if pose else model


def predict_noise(model, clip, latents, timestep):
    """Both halves of one guided call at a timestep, [uncond, cond], through the host's sampler."""
    sigma = model.get_model_object("model_sampling").sigmas[timestep]
    x = latents * (1 + sigma**2) ** 0.5
    eps = {}

    def keep(args):
        for half in ("uncond_denoised", "cond_denoised"):
            eps[half] = (args["input"] - args[half]) / sigma
        return args["denoised"]

    model = model.clone()
    model.set_model_sampler_post_cfg_function(keep)
    sample(model, clip, {"samples": x / LATENT_SCALE}, sigmas=torch.tensor([sigma, 0.0]))
    return torch.cat([eps["uncond_denoised"], eps["cond_denoised"]])


@pytest.mark.parametrize("name", EPS)
def test_noise_prediction(checkpoint, name):
    size, count, pose, mode, timestep, bank32 = re.fullmatch(
        r"(\w+)/eps/refs(\d)_pose(\d)_(dc|text)_t(\d+)(_bank32)?", name
    ).groups()
    model = wire(checkpoint, int(count), pose == "1", mode == "dc", size)
    eps = predict_noise(model, checkpoint.clip, UNET[f"{size}/latents"], int(timestep))
    # Without references there is no bank that the original could have rounded to float16.
    tolerance = 5e-5 if bank32 or count == "0" else 1e-3
    for half in (0, 1):
        assert rel(eps[half], UNET[name][half]) <= tolerance


@pytest.mark.parametrize("name", [name for name in E2E if name.endswith("_bank32")])
def test_whole_sampling(checkpoint, name):
    size, steps, guidance = re.fullmatch(r"(\w+)/steps(\d+)_g([\d.]+)/as_intended_bank32", name).groups()
    model = wire(checkpoint, 2, True, True, size)
    sigmas = run("Parts2WholeSigmas", model=model, steps=int(steps), denoise=1.0)
    # The host's latents are those of diffusers divided by sqrt(alpha): 1.0004 times at the end of this schedule.
    x = E2E[f"{size}/latents"] * (1 + sigmas[0] ** 2) ** 0.5
    samples = sample(
        model, checkpoint.clip, {"samples": x / LATENT_SCALE}, sampler="ddim", cfg=float(guidance), sigmas=sigmas
    )
    latents = samples * LATENT_SCALE / (1 + sigmas[-1] ** 2) ** 0.5
    assert rel(latents[0], E2E[name][-1]) <= 2e-4


def test_whole_sampling_with_a_negative_prompt(checkpoint):
    model = wire(checkpoint, 2, True, True, "24x16")
    sigmas = run("Parts2WholeSigmas", model=model, steps=4, denoise=1.0)
    x = E2E["24x16/latents"] * (1 + sigmas[0] ** 2) ** 0.5
    samples = sample(
        model, checkpoint.clip, {"samples": x / LATENT_SCALE}, sampler="ddim", sigmas=sigmas,
        negative=text(checkpoint.clip, "blurry, low quality"),
    )
    latents = samples * LATENT_SCALE / (1 + sigmas[-1] ** 2) ** 0.5
    # as_intended holds the original's float16 rounding of the banks: 2.2e-4.
    assert rel(latents[0], E2E["24x16/steps4_g3.5_negative/as_intended"][-1]) <= 1e-3


def test_decoded_picture(checkpoint):
    latents = E2E["24x16/steps4_g3.5/as_intended"][-1:]
    image = run("VAEDecode", vae=checkpoint.vae, samples={"samples": latents / LATENT_SCALE})
    assert (image[0] * 255 - E2E["24x16/steps4_g3.5/as_intended_image"].float()).abs().max() < 1.01


def test_appearances_are_plain_values(checkpoint):
    appearance = encode(checkpoint, golden_parts(checkpoint.clip, 1), "16x16")
    assert isinstance(appearance, Appearance)
    assert all(isinstance(address, BlockAddress) for address in appearance.references[0].banks)
