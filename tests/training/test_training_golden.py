"""The training code on the golden checkpoint gives the original's numbers, so that it trains what the release is."""

import pytest
import torch
from harness.host import GOLDEN, ROOT
from harness.workbench import REFERENCES, golden, rel

from training.config import TrainConfig, load_config
from training.model import Parts2Whole
from training.networks import build_networks, tokenize
from training.processors import References, token_grids

UNET = golden("unet")
SIZES = {"16x16": (16, 16), "24x16": (24, 16), "20x12": (20, 12)}


@pytest.fixture(scope="module")
def networks():
    """Loaded as for a training that goes on from the release."""
    config = load_config(TrainConfig, ROOT / "training" / "configs" / "sd15.yaml", [f"pretrained={GOLDEN / 'checkpoint'}"])
    config.image_encoder = None
    with torch.inference_mode():
        networks = build_networks(config)
        return networks, Parts2Whole(networks, config).eval()


def references(networks, model, size, count):
    labels = tokenize(networks.tokenizer, [label for label, _, _ in REFERENCES[:count]])
    latents = torch.cat([UNET[f"{size}/ref{i}/latents"] for i in range(count)])
    masks = torch.cat([UNET[f"{size}/ref{i}/mask_uint8"][:, 0].float() / 255 for i in range(count)])
    return References(
        model.encode_references(latents, labels), masks, (tuple(range(count)),), token_grids(model.unet, *SIZES[size])
    )


@pytest.mark.parametrize("size", SIZES)
def test_banks(networks, size):
    networks, model = networks
    banks = references(networks, model, size, 3).banks
    names = {name.removesuffix(".attn1") for name in banks}
    assert names == {key.split("/bank/")[1] for key in UNET if key.startswith(f"{size}/ref0/bank/")}
    for i, mask in enumerate(UNET[f"{size}/ref{i}/mask_uint8"] for i in range(3)):
        from attention.reference_mask import token_mask

        for name in names:
            bank = banks[f"{name}.attn1"][i]
            grid = token_grids(model.unet, *SIZES[size])[len(bank)]
            masked = bank * token_mask(mask[0, 0].float() / 255, grid)[:, None]
            assert rel(masked, UNET[f"{size}/ref{i}/bank/{name}"].reshape(masked.shape)) <= 5e-5


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("timestep", [201, 801])
def test_noise_prediction(networks, size, count, timestep):
    networks, model = networks
    expected = UNET[f"{size}/eps/refs{count}_pose1_text_t{timestep}_bank32"][1:]
    text = model.embed_text(tokenize(networks.tokenizer, ["a person, realistic"]))
    prediction = model.denoise(
        UNET[f"{size}/latents"], torch.tensor(timestep), text, None, model.pose_guider(UNET[f"{size}/pose_pixels"]),
        references(networks, model, size, count),
    )
    assert rel(prediction, expected) <= 5e-5
