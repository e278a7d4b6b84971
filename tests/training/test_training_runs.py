"""Whole runs of a toy: resumed to the same result, by the command line, in two processes, and saved as the nodes load it."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from harness.host import GOLDEN, ROOT
from harness.toy_training import CONFIGS
from harness.workbench import run
from omegaconf import OmegaConf
from safetensors.torch import load_file

from training import preview
from training.config import TrainConfig, load_config
from training.dataset import open_dataset
from training.loop import StepSampler, fit
from training.networks import build_networks, save_networks
from training.paper_dolls.pairs import PaperDolls, write
from training.train import Encoded, Step, collate, main

pytest_plugins = ["harness.toy_fixtures"]


@pytest.fixture(autouse=True)
def short_previews(monkeypatch):
    monkeypatch.setattr(preview, "STEPS", 2)


def test_the_samples_of_a_step_depend_on_the_step_alone():
    whole = list(StepSampler(10, seed=1, batch_size=4, process=0, processes=1, first_step=0, steps=6))
    assert list(StepSampler(10, seed=1, batch_size=4, process=0, processes=1, first_step=3, steps=6)) == whole[3:]
    assert sorted(sum(whole, [])[:10]) == list(range(10))
    halves = [list(StepSampler(10, 1, 2, process, 2, 0, 6)) for process in (0, 1)]
    assert [a + b for a, b in zip(*halves)] == whole


def trained(config, tmp_path, steps, name):
    config = copy.deepcopy(config)
    config.loop.output = str(tmp_path / name)
    config.loop.steps, config.loop.stop_after = 4, steps
    networks = build_networks(config)
    encoded = Encoded(open_dataset(config.data), networks, config)

    def save(module, folder):
        save_networks(networks, folder / "checkpoint", torch.float32)

    fit(Step(networks, config), encoded, collate, config.loop, save, lambda module: {"x": torch.zeros(3, 8, 8)})
    return tmp_path / name


def weights(folder):
    return {
        f"{path.parent.name}/{name}": tensor for path in sorted((folder / "checkpoint").rglob("*.safetensors"))
        for name, tensor in load_file(path).items()
    }


def test_a_resumed_run_ends_the_same(configure, tmp_path, training):
    config = configure("data.paper_dolls=3", "loop.batch_size=1")
    whole = weights(trained(config, tmp_path, 4, "whole"))
    begun = weights(trained(config, tmp_path, 2, "parted"))
    resumed = weights(trained(config, tmp_path, 4, "parted"))
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert any(not torch.equal(whole[name], begun[name]) for name in whole)

    log = [json.loads(line) for line in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in log] == [1, 2, 3, 4]
    assert list((tmp_path / "whole" / "tensorboard").rglob("events.out.tfevents.*"))


def test_the_command_trains_and_saves_what_the_node_loads(configure, tmp_path, folders, training, monkeypatch):
    """From the command line to a loaded checkpoint, also where a run is too short for a row of its log."""
    config = configure("loop.log_every=50", "loop.steps=2", "loop.output=" + str(tmp_path / "command"))
    OmegaConf.save(OmegaConf.structured(config), tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", ["train", str(tmp_path / "config.yaml"), "loop.seed=5"])
    main()
    saved = tmp_path / "command" / "checkpoint"
    assert {path.name for path in saved.iterdir()} == {
        *(path.name for path in (GOLDEN / "checkpoint").iterdir() if path.suffix != ".pth"),
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
    golden = GOLDEN / "checkpoint"
    monkeypatch.setattr(sys, "argv", [
        "train", str(CONFIGS / "sd15.yaml"), f"data.rows={tmp_path / 'data' / 'train.jsonl'}", f"pretrained={golden}",
        f"image_encoder={golden}", f"loop.output={tmp_path / 'run'}", "data.width=64", "data.height=64", "loop.steps=1",
        "loop.batch_size=1", "loop.gradient_accumulation=2", "loop.mixed_precision=bf16", "loop.workers=0", "loop.log_every=1",
        "loop.save_every=1", "loop.preview_every=1",
    ])
    main()
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1] and 0 < rows[0]["loss"] < 10
    before, after = (
        load_file(next((folder / "reference_unet").glob("*.safetensors"))) for folder in (golden, tmp_path / "run" / "checkpoint")
    )
    assert any(not torch.equal(before[name].float(), after[name]) for name in after)


@pytest.mark.slow
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
