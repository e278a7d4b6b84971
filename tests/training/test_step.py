"""One training step on a toy: what gets a gradient, what is left out, and the method as the plain formula has it."""

import pytest
import torch
from harness.toy_training import prepare

from training.dataset import open_dataset
from training.model import Parts2Whole
from training.networks import build_networks
from training.paper_dolls.pairs import PaperDolls, write
from training.processors import References, token_grids
from training.train import Encoded

pytest_plugins = ["harness.toy_fixtures"]


def predict(model, batch, references=True, images=True):
    """The U-Net's prediction for one noise on each picture."""
    text = model.embed_text(batch.captions)
    noise = torch.randn(batch.latents.shape, generator=torch.Generator().manual_seed(1))
    shared = References(
        model.encode_references(batch.reference_latents, batch.labels), batch.masks, batch.of,
        token_grids(model.unet, *batch.latents.shape[-2:]),
    )
    tokens = model.embed_images(batch.images, batch.of, [not images] * len(batch.of))
    return model.denoise(noise, torch.tensor(500), text, tokens, model.pose_guider(batch.poses), shared if references else None)


def test_every_trained_parameter_gets_a_gradient(configure, training):
    config = configure("dropout.everything=0", "dropout.all_references=0", "dropout.caption_and_images=0")
    networks, _, batch = prepare(config)
    model = Parts2Whole(networks, config)
    model(batch, torch.Generator().manual_seed(0))["loss"].backward()
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad and parameter.grad is None] == []
    assert all(parameter.grad is None for parameter in networks.vae.parameters())


def test_gradient_checkpointing_changes_nothing(configure, training):
    losses, gradients = [], []
    for checkpointing in ("false", "true"):
        config = configure(f"loop.gradient_checkpointing={checkpointing}")
        networks, _, batch = prepare(config)
        model = Parts2Whole(networks, config).train()
        loss = model(batch, torch.Generator().manual_seed(0))["loss"]
        loss.backward()
        losses.append(loss.item())
        gradients.append(networks.reference_unet.conv_in.weight.grad)
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert gradients[0].abs().max() > 0
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_shared_attention_is_the_plain_formula(configure):
    """All tokens of all references times their masks as keys and values, zeros among them."""
    config = configure()
    networks, _, batch = prepare(config, pictures=1)
    model = Parts2Whole(networks, config)
    seen = predict(model, batch)

    banks = model.encode_references(batch.reference_latents, batch.labels)
    from attention.reference_mask import token_mask

    class Plain:
        def __init__(self, layer):
            self.layer = layer

        def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, temb=None, references=None,
                     image_tokens=None):
            bank = banks[self.layer]
            grid = token_grids(model.unet, 12, 8)[bank.shape[1]]
            masked = torch.cat([features * token_mask(mask, grid)[:, None] for features, mask in zip(bank, batch.masks)])
            keys = torch.cat([hidden_states, masked.expand(len(hidden_states), -1, -1)], 1)
            q, k, v = (
                x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)
                for x in (attn.to_q(hidden_states), attn.to_k(keys), attn.to_v(keys))
            )
            weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
            return attn.to_out[0]((weights @ v).transpose(1, 2).flatten(2))

    model.unet.set_attn_processor({
        name: Plain(name.removesuffix(".processor")) if "attn1" in name else processor
        for name, processor in model.unet.attn_processors.items()
    })
    expected = predict(model, batch)
    assert (seen - expected).norm() <= 1e-5 * expected.norm()
    assert (predict(model, batch, images=False) - expected).norm() > 1e-4 * expected.norm()


CHANGES = {
    "captions": lambda batch: batch._replace(captions=batch.captions.flip(0)),
    "images": lambda batch: batch._replace(images=batch.images + 1),
    "pose": lambda batch: batch._replace(poses=1 - batch.poses),
    "references": lambda batch: batch._replace(reference_latents=batch.reference_latents + 1),
    "labels": lambda batch: batch._replace(labels=batch.labels.roll(1, 0)),
    "masks": lambda batch: batch._replace(masks=1 - batch.masks),
}
WITHOUT = {
    "nothing": (),
    "caption_and_images": ("captions", "images"),
    "pose": ("pose",),
    "all_references": ("references", "labels", "masks"),
    "each_reference": ("references", "labels", "masks"),
    "everything": ("captions", "images", "references", "labels", "masks"),
}


@pytest.mark.parametrize("left_out", WITHOUT)
def test_each_dropout_takes_away_what_it_names_and_nothing_else(toy_networks, configure, left_out):
    off = [f"dropout.{name}=0" for name in WITHOUT if name != "nothing"] + ["dropout.with_images=false"]
    on = [] if left_out == "nothing" else [f"dropout.{left_out}=1"]
    networks, _, batch = toy_networks
    model = Parts2Whole(networks, configure(*off, *on))

    def loss(batch):
        return model(batch, torch.Generator().manual_seed(0))["noise"].item()

    whole = loss(batch)
    without = {name for name, change in CHANGES.items() if loss(change(batch)) == whole}
    assert without == set(WITHOUT[left_out])


def test_errors_in_regions_can_count_more(toy_networks, configure):
    networks, _, batch = toy_networks
    settings = ("hints=0", "detail_weight=0")
    weighted, plain = (Parts2Whole(networks, configure(*settings, f"region_weight={weight}")) for weight in (9, 0))
    shares = torch.tensor([1.0 / len(batch.of[0])] * len(batch.of[0]) + [1.0 / len(batch.of[1])] * len(batch.of[1]))

    def loss(model, regions):
        return model(batch._replace(regions=regions), torch.Generator().manual_seed(0))["loss"].item()

    expected = loss(plain, batch.regions)
    nowhere, everywhere = torch.zeros_like(batch.regions), shares[:, None, None].expand_as(batch.regions)
    assert loss(weighted, nowhere) == pytest.approx(expected, rel=1e-5)
    assert loss(weighted, everywhere) == pytest.approx(expected, rel=1e-5)
    assert loss(weighted, batch.regions) != pytest.approx(expected, rel=1e-3)


def test_errors_in_details_can_count_more(toy_networks, configure):
    networks, _, batch = toy_networks
    settings = ("hints=0", "region_weight=0")
    weighted, plain = (Parts2Whole(networks, configure(*settings, f"detail_weight={weight}")) for weight in (9, 0))

    def loss(model, details):
        return model(batch._replace(details=details), torch.Generator().manual_seed(0))["loss"].item()

    expected = loss(plain, batch.details)
    nowhere, somewhere = torch.zeros_like(batch.details), torch.zeros_like(batch.details)
    somewhere[:, 2:4] = 1
    assert loss(weighted, nowhere) == pytest.approx(expected) == pytest.approx(loss(weighted, nowhere + 1), rel=1e-5)
    assert loss(weighted, somewhere) != pytest.approx(expected, rel=1e-3)


def test_hints_need_data_that_knows_the_regions(tmp_path, configure):
    write(PaperDolls(1, 0, 64, 96), tmp_path / "data")
    config = configure("data.paper_dolls=0", f"data.rows={tmp_path / 'data' / 'train.jsonl'}", "data.cache_latents=false")
    with pytest.raises(ValueError, match="set all three to 0"):
        Encoded(open_dataset(config.data), build_networks(config), config)


def test_without_what_hints_may_teach_they_are_the_two_of_old(toy_networks, configure):
    networks, _, batch = toy_networks
    config = configure("kinds=0", "patterns=0", "colours=false", "detail_weight=0")
    model = Parts2Whole(networks, config)
    losses = {name: value.item() for name, value in model(batch, torch.Generator().manual_seed(0)).items()}
    assert {name.split(".")[0] for name, _ in model.readouts.named_parameters()} == {"from_bank", "from_output"}
    assert losses["naming"] == losses["colouring"] == losses["weaving"] == 0 < min(losses["looking"], losses["reading"])
    assert losses["loss"] == pytest.approx(losses["noise"] + config.hints * (losses["looking"] + losses["reading"]))


def test_latents_of_what_was_drawn_otherwise_are_not_taken(toy_networks, configure, tmp_path, monkeypatch):
    networks, _, _ = toy_networks
    config = configure("data.paper_dolls=1", f"loop.output={tmp_path}")
    for kept, files in ((2, 1), (2, 1), (3, 2)):
        monkeypatch.setattr("training.train.KEPT", kept)
        Encoded(open_dataset(config.data), networks, config)
        assert len([*tmp_path.glob("latents-*.safetensors")]) == files


def test_what_hints_teach_needs_hints(configure):
    with pytest.raises(ValueError, match="kinds, patterns, colours: .* `hints` is 0"):
        Encoded(None, None, configure("hints=0"))


@pytest.mark.parametrize("setting, told", [("kinds=6", "kinds is 6 .* knows 10"), ("patterns=4", "patterns is 4 .* knows 5")])
def test_what_the_data_does_not_know_is_not_taught(configure, setting, told):
    config = configure(setting, "data.cache_latents=false")
    with pytest.raises(ValueError, match=told):
        Encoded(open_dataset(config.data), None, config)
