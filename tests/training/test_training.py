"""The training code on a toy: it learns what it should see, resumes to the same result, and saves what the nodes load."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from accelerate.state import AcceleratorState
from harness.host import ROOT
from harness.workbench import run
from omegaconf import OmegaConf
from safetensors.torch import load_file

from training.config import TrainConfig, VaeConfig, load_config
from training.dataset import open_dataset
from training.loop import StepSampler, fit
from training.model import Parts2Whole, encode_batch
from training.networks import VOCABULARY, build_networks, save_networks
from training.paper_dolls.pairs import PaperDolls, write
from training.processors import References, token_grids
from training.train import Encoded, Step, collate, main
from training.train_vae import VaeLoss, VaePictures, new_vae, save_vae

CONFIGS = ROOT / "training" / "configs"
TOKENIZER = ROOT / "tests" / "golden" / "checkpoint" / "tokenizer"
SMALL = (
    "data.paper_dolls=6", "data.width=64", "data.height=96", "data.cache_latents=true", "loop.workers=0", "loop.batch_size=2",
    "loop.save_every=2", "loop.preview_every=100", "loop.log_every=1", "noises=2", "dropout.all_references=0.05",
    "dropout.each_reference=0.3", "hints=0.3", "region_weight=10", "new.unet.block_out_channels=[32,32]",
    "new.unet.down_block_types=[CrossAttnDownBlock2D,CrossAttnDownBlock2D]",
    "new.unet.up_block_types=[CrossAttnUpBlock2D,CrossAttnUpBlock2D]", f"new.tokenizer={TOKENIZER}",
)


@pytest.fixture(scope="module")
def vae_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    config = load_config(VaeConfig, CONFIGS / "paper_doll_vae.yaml", ["data.paper_dolls=4", "data.width=64", "data.height=96"])
    torch.manual_seed(0)
    save_vae(new_vae(**{**config.model, "block_out_channels": [32] * 4}), open_dataset(config.data), folder)
    return folder


@pytest.fixture
def configure(vae_folder, tmp_path):
    def configure(*settings):
        return load_config(
            TrainConfig, CONFIGS / "paper_doll.yaml",
            [*SMALL, f"pretrained={vae_folder}", f"loop.output={tmp_path / 'run'}", *settings],
        )

    return configure


@pytest.fixture
def training():
    """The host runs nodes in inference mode; training needs gradients. And each run chooses its precision."""
    AcceleratorState._reset_state(reset_partial_state=True)
    with torch.inference_mode(False), torch.enable_grad():
        yield


def prepare(config, pictures=2):
    networks = build_networks(config)
    encoded = Encoded(open_dataset(config.data), networks, config)
    return networks, encoded, encode_batch(networks.vae, collate([encoded[i] for i in range(pictures)]))


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


def test_the_samples_of_a_step_depend_on_the_step_alone():
    whole = list(StepSampler(10, seed=1, batch_size=4, process=0, processes=1, first_step=0, steps=6))
    assert list(StepSampler(10, seed=1, batch_size=4, process=0, processes=1, first_step=3, steps=6)) == whole[3:]
    assert sorted(sum(whole, [])[:10]) == list(range(10))
    halves = [list(StepSampler(10, 1, 2, process, 2, 0, 6)) for process in (0, 1)]
    assert [a + b for a, b in zip(*halves)] == whole


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
def test_each_dropout_takes_away_what_it_names_and_nothing_else(configure, left_out):
    off = [f"dropout.{name}=0" for name in WITHOUT if name != "nothing"] + ["dropout.with_images=false"]
    on = [] if left_out == "nothing" else [f"dropout.{left_out}=1"]
    config = configure(*off, *on)
    networks, _, batch = prepare(config)
    model = Parts2Whole(networks, config)

    def loss(batch):
        return model(batch, torch.Generator().manual_seed(0))["noise"].item()

    without = {name for name, change in CHANGES.items() if loss(change(batch)) == loss(batch)}
    assert without == set(WITHOUT[left_out])


def trained(config, tmp_path, steps, name):
    config = copy.deepcopy(config)
    config.loop.output = str(tmp_path / name)
    config.loop.steps, config.loop.stop_after = 4, steps
    networks, encoded, _ = prepare(config)
    saved = {}

    def save(module, folder):
        saved.update(networks=networks)
        save_networks(networks, folder / "checkpoint", torch.float32)

    fit(Step(networks, config), encoded, collate, config.loop, save, lambda module: {"x": torch.zeros(3, 8, 8)})
    return tmp_path / name


def weights(folder):
    return {
        f"{path.parent.name}/{name}": tensor for path in sorted((folder / "checkpoint").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_a_resumed_run_ends_the_same(configure, tmp_path, training):
    config = configure()
    whole = weights(trained(config, tmp_path, 4, "whole"))
    trained(config, tmp_path, 2, "parted")
    resumed = weights(trained(config, tmp_path, 4, "parted"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    begun = weights(trained(config, tmp_path, 2, "begun"))
    assert any(not torch.equal(whole[name], begun[name]) for name in whole)

    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert list((tmp_path / "whole" / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_vae_learns(training, vae_folder):
    config = load_config(
        VaeConfig, CONFIGS / "paper_doll_vae.yaml", ["data.paper_dolls=4", "data.width=64", "data.height=96", "crops=2", "crop=32"]
    )
    torch.manual_seed(0)
    module = VaeLoss(new_vae(**config.model), config)
    pictures = torch.stack([VaePictures(open_dataset(config.data))[i] for i in range(4)])
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=5e-4)
    losses = []
    for step in range(30):
        loss = module(pictures, torch.Generator().manual_seed(step))["loss"]
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    assert json.loads((vae_folder / "vae" / "config.json").read_text())["scaling_factor"] > 0


def test_the_command_trains_and_saves_what_the_node_loads(configure, tmp_path, folders, training, monkeypatch):
    """From the command line to a loaded checkpoint, also where a run is too short for a row of its log."""
    config = configure("loop.log_every=50", "loop.steps=2", "loop.output=" + str(tmp_path / "command"))
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "config.yaml"), "loop.seed=5"])
    main()
    saved = tmp_path / "command" / "checkpoint"
    assert {path.name for path in saved.iterdir()} == {
        *(path.name for path in (ROOT / "tests" / "golden" / "checkpoint").iterdir() if path.suffix != ".pth"),
        "decoupled_attn.safetensors", "training.yaml",
    }
    assert {path.suffix for path in saved.rglob("*") if path.is_file()} == {".json", ".yaml", ".txt", ".safetensors"}
    assert load_config(TrainConfig, saved / "training.yaml").loop.seed == 5
    link = folders / "models" / "parts2whole" / "saved"
    link.symlink_to(saved)
    with torch.inference_mode():
        assert len(run("Parts2WholeLoader", checkpoint="saved")) == 7
    link.unlink()


def test_the_full_size_configuration_trains_on_rows_on_disk(tmp_path, training, monkeypatch):
    """As a user starts it, but for the size and bf16, which a CPU has: the written dataset, accumulation, checkpointing."""
    write(PaperDolls(4, 0, 64, 96), tmp_path / "data")
    golden = ROOT / "tests" / "golden" / "checkpoint"
    monkeypatch.setattr(sys, "argv", [
        "train", str(CONFIGS / "sd15.yaml"), f"data.rows={tmp_path / 'data' / 'train.jsonl'}", f"pretrained={golden}",
        f"image_encoder={golden}", f"loop.output={tmp_path / 'run'}", "data.width=64", "data.height=64", "loop.steps=2",
        "loop.batch_size=2", "loop.gradient_accumulation=2", "loop.mixed_precision=bf16", "loop.workers=0", "loop.log_every=1",
        "loop.save_every=2", "loop.preview_every=2",
    ])
    main()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(0 < row["loss"] < 10 for row in rows)
    before, after = (
        load_file(next((folder / "reference_unet").glob("*.safetensors"))) for folder in (golden, tmp_path / "run" / "checkpoint")
    )
    assert any(not torch.equal(before[name].float(), after[name]) for name in after)


def test_two_processes_train_together(configure, tmp_path):
    """On a CPU, started by torch's own launcher as accelerate's is for several machines."""
    config = configure("loop.steps=1", "loop.preview_every=1", "loop.output=" + str(tmp_path / "two"))
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "training.train",
         str(tmp_path / "config.yaml")],
        cwd=ROOT, env={**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}, check=True, timeout=300,
    )
    states = {path.name for path in (tmp_path / "two" / "state").iterdir()}
    assert states >= {"random_states_0.pkl", "random_states_1.pkl"}
    assert (tmp_path / "two" / "checkpoint" / "unet").is_dir()
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 1


def test_hints_need_data_that_knows_the_regions(tmp_path, configure):
    write(PaperDolls(1, 0, 64, 96), tmp_path / "data")
    config = configure("data.paper_dolls=0", f"data.rows={tmp_path / 'data' / 'train.jsonl'}", "data.cache_latents=false")
    with pytest.raises(ValueError, match="set both to 0"):
        Encoded(open_dataset(config.data), build_networks(config), config)


def test_a_trained_checkpoint_is_gone_on_with(configure, tmp_path):
    networks, _, _ = prepare(configure())
    for i, network in enumerate((networks.unet, networks.reference_unet, networks.pose_guider, networks.text_encoder)):
        for parameter in network.parameters():
            parameter += i + 1
    save_networks(networks, tmp_path / "trained", torch.float32)
    networks.tokenizer.save_pretrained(tmp_path / "trained" / "tokenizer")
    for file in VOCABULARY:  # as newer transformers write the folder
        (tmp_path / "trained" / "tokenizer" / file).unlink()
    again = build_networks(configure(f"pretrained={tmp_path / 'trained'}", f"new.tokenizer={tmp_path / 'trained' / 'tokenizer'}"))
    save_networks(again, tmp_path / "again", torch.float32)
    for name in ("unet", "reference_unet", "pose_guider", "text_encoder", "image_encoder"):
        one, other = (getattr(x, name).state_dict() for x in (networks, again))
        assert one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one), name


def test_errors_in_regions_can_count_more(configure):
    config = configure("region_weight=9", "hints=0")
    networks, _, batch = prepare(config)
    weighted, plain = Parts2Whole(networks, config), Parts2Whole(networks, configure("hints=0", "region_weight=0"))
    shares = torch.tensor([1.0 / len(batch.of[0])] * len(batch.of[0]) + [1.0 / len(batch.of[1])] * len(batch.of[1]))

    def loss(model, regions):
        return model(batch._replace(regions=regions), torch.Generator().manual_seed(0))["loss"].item()

    expected = loss(plain, batch.regions)
    nowhere, everywhere = torch.zeros_like(batch.regions), shares[:, None, None].expand_as(batch.regions)
    assert loss(weighted, nowhere) == pytest.approx(expected, rel=1e-5)
    assert loss(weighted, everywhere) == pytest.approx(expected, rel=1e-5)
    assert loss(weighted, batch.regions) != pytest.approx(expected, rel=1e-3)
