"""Networks are built, saved and loaded again."""

import pytest
import torch
from harness.toy_training import prepare

from training.networks import VOCABULARY, build_networks, load_trained, save_networks

pytest_plugins = ["harness.toy_fixtures"]


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


def test_a_network_without_a_file_is_named(toy_networks, tmp_path):
    with pytest.raises(FileNotFoundError, match="unet has no safetensors file"):
        load_trained(toy_networks[0], tmp_path)
