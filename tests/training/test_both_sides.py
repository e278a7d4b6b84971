"""The shipped model gives the same on diffusers, where it was trained, and through the nodes."""

import json

import numpy as np
import pytest
import torch
from harness.both_sides import sampled_by_nodes
from harness.host import ROOT
from harness.workbench import rel, run

from training.config import TrainConfig, load_config
from training.model import Parts2Whole, encode_batch
from training.networks import build_networks, save_networks
from training.paper_dolls import drawer
from training.paper_dolls.evaluate import evaluate
from training.paper_dolls.pairs import HEIGHT, WIDTH, Pair, PaperDolls
from training.paper_dolls.rows import CONDITIONS
from training.preview import sample_latents
from training.train import Encoded, collate

CHECKPOINT = ROOT / "models" / "paper_doll"
SEED = 1_000_003


@pytest.fixture(scope="module")
def diffusers_side():
    """The model as training loads it."""
    config = load_config(
        TrainConfig, CHECKPOINT / "training.yaml", [f"pretrained={CHECKPOINT}", "data.cache_latents=false", "data.cut_out=0"]
    )
    config.new = {}
    with torch.inference_mode():
        networks = build_networks(config)
        return Parts2Whole(networks, config).eval(), Encoded(PaperDolls(4, SEED), networks, config)


@pytest.fixture(scope="module", params=["as shipped", "saved again"])
def nodes_side(request, folders, diffusers_side, tmp_path_factory):
    """The model as the nodes load it."""
    from parts2whole.encoders.checkpoint.load import Checkpoint

    with torch.inference_mode():
        if request.param == "as shipped":
            yield Checkpoint(*run("Parts2WholeLoader", checkpoint="paper_doll"))
            return
        folder = tmp_path_factory.mktemp("saved") / "checkpoint"
        save_networks(diffusers_side[1].networks, folder, torch.float16)
        link = folders / "models" / "parts2whole" / "both_sides"
        link.symlink_to(folder)
        yield Checkpoint(*run("Parts2WholeLoader", checkpoint="both_sides"))
        link.unlink()


@pytest.mark.parametrize("index", [0, 1])
def test_sampling_ends_in_the_same_latents(nodes_side, diffusers_side, index):
    model, encoded = diffusers_side
    batch = encode_batch(encoded.networks.vae, collate([encoded[index]]))
    noise = torch.randn(1, 4, HEIGHT // 8, WIDTH // 8, generator=torch.Generator().manual_seed(0))
    expected = sample_latents(model, batch, noise, steps=3, guidance=2.0)

    scale = json.loads((CHECKPOINT / "vae" / "config.json").read_text())["scaling_factor"]
    assert rel(sampled_by_nodes(nodes_side, Pair(SEED, index), noise, 3, scale), expected) <= 1e-3


class Keeping(drawer.Drawer):
    """Keeps what the evaluation lets it draw, by the condition."""

    def __init__(self, checkpoint):
        super().__init__(checkpoint)
        self.pictures = {}

    def draw(self, pair, references, condition, seed):
        picture = super().draw(pair, references, condition, seed)
        self.pictures.setdefault(condition.name, picture)  # not the later ones, with a part swapped
        return picture


def test_every_condition_of_the_evaluation_draws(monkeypatch, capsys):
    """One figure and one step: what is left out makes another picture."""
    monkeypatch.setattr(drawer, "STEPS", 1)
    keeping = Keeping("paper_doll")
    result = evaluate(keeping, count=1, swaps=1)
    pictures = keeping.pictures
    assert set(pictures) == {condition.name for condition in CONDITIONS}
    assert all(picture.shape == (HEIGHT, WIDTH, 3) for picture in pictures.values())
    assert np.array_equal(pictures.pop("all references"), pictures["4 references"]), "this figure wears four parts"
    assert len({picture.tobytes() for picture in pictures.values()}) == len(pictures)
    assert set(result["rows"]) >= {*pictures, "mean colour", "the true picture"}
    assert result["rows"]["the true picture"]["colour"] < result["rows"]["3 references"]["colour"]
    assert "swap locality" in capsys.readouterr().out
