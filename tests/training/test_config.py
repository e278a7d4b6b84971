"""Configuration files: what is written over what, and what is refused."""

import pytest
from harness.host import ROOT
from omegaconf import OmegaConf

from training.config import TrainConfig, VaeConfig, load_config

CONFIGS = ROOT / "training" / "configs"


def test_the_releases_settings_are_the_defaults():
    config = load_config(TrainConfig, CONFIGS / "sd15.yaml")
    assert (config.loop.batch_size, config.loop.learning_rate, config.loop.steps) == (8, 2e-5, 30_000)
    assert (config.loop.mixed_precision, config.loop.learning_rate_schedule) == ("fp16", "constant")
    assert (config.data.width, config.data.height, config.noises) == (512, 512, 1)
    dropout = config.dropout
    assert (dropout.caption_and_images, dropout.pose, dropout.all_references, dropout.each_reference) == (0.1, 0.2, 0.2, 0.2)
    assert (dropout.everything, dropout.empty_caption) == (0.0, False)
    assert not config.train_text_encoder and not config.train_image_encoder and config.hints == 0
    assert config.new["scheduler"]["beta_schedule"] == "linear" and config.loop.gradient_checkpointing


def test_the_shipped_models_settings_are_those_of_its_last_part():
    """As models/paper_doll/training.yaml has them, resolved when the model was saved. What came since is at its default."""
    saved = OmegaConf.load(ROOT / "models" / "paper_doll" / "training.yaml")
    told = OmegaConf.to_container(OmegaConf.merge(OmegaConf.structured(TrainConfig), saved))
    config = OmegaConf.to_container(OmegaConf.structured(load_config(TrainConfig, CONFIGS / "paper_doll_11.yaml")))
    assert config == told


def test_a_configuration_is_written_over_its_base(tmp_path):
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "first.yaml").write_text("loop: {steps: 3, seed: 1}\nnew: {unet: {a: [1, 2], b: 1}}\nnoises: 2\n")
    (tmp_path / "second.yaml").write_text(
        "base: far/first.yaml\npretrained: here\nloop: {output: out, seed: 2}\nnew: {unet: {a: [3]}}\n"
    )
    (tmp_path / "third.yaml").write_text("base: second.yaml\nnoises: 4\n")
    config = load_config(TrainConfig, tmp_path / "third.yaml", ["loop.seed=5"])
    assert (config.loop.steps, config.loop.seed, config.loop.output, config.noises) == (3, 5, "out", 4)
    assert config.new == {"unet": {"a": [3], "b": 1}}
    assert "base" not in OmegaConf.structured(config)


def test_a_configuration_that_is_its_own_base_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("base: b.yaml\n")
    (tmp_path / "b.yaml").write_text("base: a.yaml\n")
    with pytest.raises(ValueError, match="a.yaml is its own base"):
        load_config(TrainConfig, tmp_path / "a.yaml")


@pytest.mark.parametrize("text", [
    "pretrained: ${oc.env:SECRET}\n", "new: {unet: {names: [a, 'b ${oc.env:SECRET}']}}\n", "base: ${oc.env:SECRET}\n",
    "noises: 2\npretrained: ${loop.output}\n",
])
@pytest.mark.parametrize("where", ["file", "base"])
def test_a_value_that_stands_for_another_is_refused(tmp_path, monkeypatch, text, where):
    """A variable of the environment would end up in the checkpoint's training.yaml."""
    monkeypatch.setenv("SECRET", "told-nobody")
    (tmp_path / "a.yaml").write_text(text if where == "file" else "base: b.yaml\nloop: {output: out}\n")
    (tmp_path / "b.yaml").write_text(text)
    with pytest.raises(ValueError, match="Write the value itself") as refused:
        load_config(TrainConfig, tmp_path / "a.yaml", ["loop.output=out", "pretrained=there"])
    assert "told-nobody" not in str(refused.value)


def test_nor_may_a_single_setting_stand_for_another(monkeypatch):
    monkeypatch.setenv("SECRET", "told-nobody")
    with pytest.raises(ValueError, match="^start in the settings"):
        load_config(VaeConfig, CONFIGS / "paper_doll_vae.yaml", ["start=${oc.env:SECRET}"])
