"""What `make evaluate` measures, apart from the model; and the paper's metrics with small random networks."""

import argparse
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.host import ROOT
from PIL import Image
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, Dinov2Config, Dinov2Model

from training.config import TrainConfig, VaeConfig, load_config
from training.image_metrics import add_arguments, find_pairs, measure_folders, similarity
from training.paper_dolls.evaluate import TITLES, plot
from training.paper_dolls.rows import CONDITIONS, HELD_OUT_SEED, figures, labels_of, measure_mean_colour, measure_parts

CONFIGS = ROOT / "training" / "configs"


def test_figures_are_held_out():
    for path in {*CONFIGS.glob("paper_doll*.yaml")} - {*CONFIGS.glob("*_common.yaml")}:
        config = load_config(VaeConfig if "vae" in path.stem else TrainConfig, path)
        assert config.data.seed != HELD_OUT_SEED


def test_true_pictures_measure_well_and_others_do_not():
    pairs = figures(6, wears_all=False)
    true = measure_parts(pairs, 3, lambda pair: pair.drawing.image)
    # A pattern that begins anew at the waist of a dress is not always found.
    assert true.colour < 2 and true.pattern > 0.85 and true.pose > 0.95 and true.figures == 6
    wrong = measure_parts(pairs, 3, lambda pair: pairs[(pairs.index(pair) + 1) % 6].drawing.image)
    assert wrong.colour > 15 and wrong.pattern < 0.8 and wrong.pose < 0.8
    guess = measure_mean_colour(pairs, 3)
    assert 15 < guess.colour < 50 and guess.pattern < 0.6


def test_references_are_added_in_a_fixed_order():
    for pair in figures(6, wears_all=True):
        assert len(pair.doll.wears) == len(labels_of(pair, 6)) == 6
        assert labels_of(pair, 2) == labels_of(pair, 6)[:2]


def test_the_plot_shows_every_row(tmp_path):
    """As an SVG, whose comments are the texts."""
    drawn = {
        condition.name: {key: (11.1 if key == "colour" else 0.1 * column) + i / 100 for column, key in enumerate(TITLES, 1)}
        for i, condition in enumerate(CONDITIONS)
    }
    plot({"rows": drawn}, tmp_path / "plot.svg")
    texts = [text.strip() for text in re.findall("<!--(.*?)-->", (tmp_path / "plot.svg").read_text())]
    for name, row in drawn.items():
        shown = [name, *(f"{value:.1f}" if key == "colour" else f"{value:.2f}" for key, value in row.items())]
        assert all(texts.count(text) >= 1 for text in shown), shown


@pytest.fixture
def folders_of_pictures(tmp_path):
    rng = np.random.default_rng(0)
    for folder in ("generated", "references"):
        (tmp_path / folder).mkdir()
    for name in ("a", "b"):
        pixels = rng.integers(0, 255, (40, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "generated" / f"{name}.png")
        Image.fromarray(pixels).save(tmp_path / "references" / f"{name}_face.png")
        Image.fromarray(255 - pixels).save(tmp_path / "references" / f"{name}_shoes.png")
    return tmp_path


def test_pictures_find_their_references(folders_of_pictures):
    pairs = find_pairs(folders_of_pictures / "generated", folders_of_pictures / "references")
    assert [(a.name, b.name) for a, b in pairs] == [
        ("a.png", "a_face.png"), ("a.png", "a_shoes.png"), ("b.png", "b_face.png"), ("b.png", "b_shoes.png")
    ]
    (folders_of_pictures / "generated" / "b.png").rename(folders_of_pictures / "generated" / "c.png")
    with pytest.raises(ValueError, match="no reference for c.png"):
        find_pairs(folders_of_pictures / "generated", folders_of_pictures / "references")


@pytest.fixture
def networks(tmp_path) -> dict[str, Path]:
    torch.manual_seed(0)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    clip = CLIPModel(CLIPConfig(
        text_config={**small, "projection_dim": 16},
        vision_config={**small, "image_size": 32, "patch_size": 8, "projection_dim": 16},
        projection_dim=16,
    ))
    dino = Dinov2Model(Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32, patch_size=8, mlp_ratio=2
    ))
    for name, model in (("clip", clip), ("dino", dino)):
        model.save_pretrained(tmp_path / name)
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(tmp_path / name)
    return {"clip": tmp_path / "clip", "dino": tmp_path / "dino"}


def test_similarities_are_those_of_the_embeddings(folders_of_pictures, networks):
    pairs = find_pairs(folders_of_pictures / "generated", folders_of_pictures / "references")
    for folder in networks.values():
        assert similarity([pairs[0]], folder) == pytest.approx(1, abs=1e-5)
        assert similarity([pairs[1]], folder) < 0.999


def test_only_metrics_with_weights_are_computed(folders_of_pictures, networks):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    folders = ["--generated", str(folders_of_pictures / "generated"), "--references", str(folders_of_pictures / "references")]
    measured = measure_folders(parser.parse_args([*folders, "--clip", str(networks["clip"]), "--dino", str(networks["dino"])]))
    assert set(measured) == {"CLIP image-image", "DINOv2"}
    with pytest.raises(ValueError, match="--clip"):
        measure_folders(parser.parse_args(folders))
