"""Training reads local folders only: it asks no network for those that are missing, and rows stay within their folder."""

import json
import shutil
import socket
from pathlib import Path

import pytest
from harness.host import GOLDEN, ROOT
from PIL import Image

from training import train_vae
from training.config import TrainConfig, load_config
from training.dataset import PartsDataset
from training.image_metrics import dreamsim, similarity
from training.networks import build_networks

CONFIGS = ROOT / "training" / "configs"
CHECKPOINT = GOLDEN / "checkpoint"


@pytest.fixture
def asked(monkeypatch):
    """What is asked of the network: nothing gets through."""
    asked = []

    def refuse(*arguments, **_):
        asked.append(arguments)
        raise OSError("no network")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    for variable in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(variable, raising=False)
    return asked


@pytest.mark.parametrize("key, setting", [
    ("pretrained", "pretrained=someone/model"),
    ("image_encoder", "image_encoder=someone/clip"),
    ("new.tokenizer", "new.tokenizer=someone/words"),
])
def test_a_missing_folder_of_a_network_is_named(asked, key, setting):
    config = load_config(
        TrainConfig, CONFIGS / "sd15.yaml", [f"pretrained={CHECKPOINT}", f"image_encoder={CHECKPOINT}", setting]
    )
    with pytest.raises(FileNotFoundError, match=f"correct `{key}` in the configuration"):
        build_networks(config)
    assert not asked


def test_a_missing_part_of_a_folder_is_named(asked, tmp_path):
    (tmp_path / "vae").symlink_to(CHECKPOINT / "vae")
    config = load_config(TrainConfig, CONFIGS / "sd15.yaml", [f"pretrained={tmp_path}", f"image_encoder={CHECKPOINT}"])
    with pytest.raises(FileNotFoundError, match="tokenizer is no folder"):
        build_networks(config)
    assert not asked


def test_a_missing_vae_to_go_on_with_is_named(asked, tmp_path, monkeypatch):
    arguments = [str(CONFIGS / "paper_doll_vae.yaml"), "start=someone/vae", f"loop.output={tmp_path}"]
    monkeypatch.setattr("sys.argv", ["train_vae", *arguments])
    with pytest.raises(FileNotFoundError, match="correct `start` in the configuration"):
        train_vae.main()
    assert not asked


def test_a_whole_folder_asks_nothing(asked):
    """Some tokenizers ask for their origin even where all files are there."""
    build_networks(load_config(TrainConfig, CONFIGS / "sd15.yaml", [f"pretrained={CHECKPOINT}", f"image_encoder={CHECKPOINT}"]))
    assert not asked


def test_a_config_chooses_no_attention_kernel(asked, tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "strange")
    for name in ("text_encoder", "image_encoder"):
        file = tmp_path / "strange" / name / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "_attn_implementation": "someone/kernel"}))
    folder = tmp_path / "strange"
    networks = build_networks(load_config(TrainConfig, CONFIGS / "sd15.yaml", [f"pretrained={folder}", f"image_encoder={folder}"]))
    assert networks.text_encoder.config._attn_implementation == networks.image_encoder.config._attn_implementation == "sdpa"
    assert not asked


@pytest.mark.parametrize("metric, option", [(similarity, "--clip or --dino"), (dreamsim, "--dreamsim")])
def test_missing_weights_of_a_metric_are_named(asked, metric, option):
    with pytest.raises(FileNotFoundError, match=f"by {option}"):
        metric([], Path("someone/metric"))
    assert not asked


@pytest.fixture
def write_rows(tmp_path):
    """A folder of rows beside a picture that is not theirs, and a function that writes one row after a good one."""
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("data/a.png", "secret.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (folder / "link.png").symlink_to("../secret.png")
    (folder / "up").symlink_to("..")
    (folder / "inner.png").symlink_to("a.png")

    def write(**changed):
        good = {"target": "a.png", "caption": "x", "appearance": {"face": "a.png"}, "mask": {"face": "a.png"}, "structure": {}}
        (folder / "train.jsonl").write_text(json.dumps(good) + "\n\n" + json.dumps({**good, **changed}) + "\n")
        return folder / "train.jsonl"

    return write


@pytest.mark.parametrize("path", ["../secret.png", "{tmp}/secret.png", "b/../../secret.png", "link.png", "up/secret.png"])
@pytest.mark.parametrize("where", ["target", "appearance", "mask", "structure"])
def test_a_row_that_leads_outside_its_folder_is_named(write_rows, tmp_path, path, where):
    path = path.format(tmp=tmp_path)
    rows = write_rows(**{where: path if where == "target" else {"densepose" if where == "structure" else "face": path}})
    with pytest.raises(ValueError, match="line 3: .*secret|line 3: 'link.png' is not within"):
        PartsDataset(rows)[1]


def test_links_within_the_folder_are_followed(write_rows, tmp_path):
    (tmp_path / "elsewhere").symlink_to("data")
    rows = write_rows(target="inner.png")
    for file in (rows, tmp_path / "elsewhere" / "train.jsonl"):
        assert PartsDataset(file)[1].target.size == (8, 8)


def test_a_picture_of_the_vaes_training_stays_within_too(write_rows):
    with pytest.raises(ValueError, match="line 3"):
        PartsDataset(write_rows(appearance={"face": "link.png"})).picture(1)
