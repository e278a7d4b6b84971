"""Configurations of a checkpoint: what is read of them, and those that are refused before anything is built."""

import json

import comfy.model_base
import pytest
import torch
from harness.memory import MIB, most_memory
from parts2whole.encoders.checkpoint import load as loading


@pytest.mark.parametrize("beta_schedule, first_sigma", [("scaled_linear", 0.0292), ("linear", 0.0292)])
def test_the_noise_schedule_comes_from_the_config(copy, beta_schedule, first_sigma):
    path = copy / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "beta_schedule": beta_schedule}))
    model = loading.load_model(str(copy))
    sigmas = model.get_model_object("model_sampling").sigmas
    start, end = config["beta_start"], config["beta_end"]
    betas = torch.linspace(start, end, 1000, dtype=torch.float64)
    if beta_schedule == "scaled_linear":
        betas = torch.linspace(start**0.5, end**0.5, 1000, dtype=torch.float64) ** 2
    alphas = (1 - betas).cumprod(0)
    assert torch.allclose(sigmas.double(), ((1 - alphas) / alphas).sqrt(), rtol=1e-5)
    assert abs(float(sigmas[0]) - first_sigma) < 1e-4


@pytest.mark.parametrize("text, size", [
    ("data: {width: 128, height: 192}", (128, 192)), (None, None), ("", None), ("data: 5", None), ("data: {width: 128}", None),
    ("data: {width: a, height: 192}", None), ("{", None), ("\x80", None), ("!!python/object:os.system {}", None),
])
def test_the_size_of_the_training_is_read_where_it_is_told(copy, text, size):
    if text is not None:
        (copy / "training.yaml").write_bytes(text.encode("latin-1"))
    assert loading.load_model(str(copy)).model.model_config.trained_size == size


@pytest.mark.parametrize("schedule", ["squaredcos_cap_v2", "sigmoid", 7])
def test_a_noise_schedule_that_the_host_lacks_is_refused_with_those_that_it_has(copy, schedule):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "beta_schedule": schedule}))
    with pytest.raises(ValueError, match="is not supported. Expected beta_schedule one of linear, scaled_linear and"):
        loading.load_model(str(copy))


def test_what_the_model_predicts_comes_from_the_config(copy):
    path = copy / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    assert loading.load_model(str(copy)).model.model_type == comfy.model_base.ModelType.V_PREDICTION


COMPONENTS = {
    "unet": loading.load_model, "reference_unet": loading.load_appearance_encoder, "vae": loading.load_vae,
    "text_encoder": loading.load_clip, "image_encoder": loading.load_clip_vision, "pose_guider": loading.load_pose_guider,
    "scheduler": loading.load_model, "feature_extractor": loading.load_clip_vision,
}


@pytest.mark.parametrize("component, name, value", [
    ("unet", "layers_per_block", 10**9), ("unet", "layers_per_block", 3), ("unet", "layers_per_block", "2"),
    ("unet", "block_out_channels", [32, 32, 64, 32 * 10**6]), ("unet", "block_out_channels", [32, 32, 64, 128]),
    ("unet", "block_out_channels", [32] * 1000), ("unet", "block_out_channels", None),
    ("unet", "down_block_types", ["DownBlock2D"] * 10**4), ("unet", "up_block_types", ["CrossAttnUpBlock2D"] * 3),
    ("unet", "down_block_types", ["Stranger"] * 4), ("unet", "in_channels", 10**6), ("unet", "out_channels", 8000),
    ("unet", "cross_attention_dim", 8000), ("unet", "attention_head_dim", 10**9), ("unet", "attention_head_dim", 0),
    ("unet", "attention_head_dim", [4, 4, 4, 4]), ("unet", "norm_num_groups", 16), ("vae", "norm_num_groups", 8),
    ("reference_unet", "layers_per_block", 3), ("reference_unet", "block_out_channels", [64, 64, 128, 128]),
    ("vae", "layers_per_block", 10**9), ("vae", "block_out_channels", [32, 32, 32, 10**7]), ("vae", "latent_channels", 10**6),
    ("vae", "in_channels", 10**6), ("vae", "out_channels", 10**6), ("vae", "scaling_factor", 0), ("vae", "scaling_factor", "x"),
    ("text_encoder", "hidden_size", 10**6), ("text_encoder", "intermediate_size", 10**8),
    ("text_encoder", "num_hidden_layers", 10**9), ("text_encoder", "num_attention_heads", 5),
    ("text_encoder", "num_attention_heads", 0), ("text_encoder", "hidden_act", "stranger"),
    ("image_encoder", "hidden_size", 10**6), ("image_encoder", "num_hidden_layers", 10**9),
    ("image_encoder", "image_size", 10**6), ("image_encoder", "image_size", 448), ("image_encoder", "patch_size", 0),
    ("image_encoder", "projection_dim", 10**6), ("image_encoder", "model_type", "dinov2"), ("image_encoder", "hidden_act", None),
    ("pose_guider", "block_out_channels", [16, 32, 96, 10**6]), ("pose_guider", "block_out_channels", [16] * 10**4),
    ("pose_guider", "conditioning_embedding_channels", 10**6), ("pose_guider", "conditioning_channels", 10**6),
    ("scheduler", "num_train_timesteps", 10**9), ("scheduler", "num_train_timesteps", 0),
    ("scheduler", "beta_start", -1), ("scheduler", "beta_end", 5), ("scheduler", "beta_end", None),
    ("scheduler", "beta_schedule", ["linear"]),
    ("feature_extractor", "image_std", [0, 0, 0]), ("feature_extractor", "image_mean", "x"),
], ids=lambda value: str(value)[:30])
def test_a_configuration_that_does_not_fit_is_refused_before_anything_is_built(copy, component, name, value):
    path = next((copy / component).glob("*config.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), name: value}))

    def load():
        with pytest.raises(ValueError, match=str(copy / component)):
            COMPONENTS[component](str(copy))

    assert most_memory(load) < 100 * MIB
