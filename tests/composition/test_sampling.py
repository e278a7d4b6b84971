"""Batches, sizes, samplers and tiles."""

import pytest
import torch
from harness.workbench import apply_parts, apply_pose, encode, noise, picture, rel, run, text


def test_each_picture_of_a_batch_equals_the_same_alone(checkpoint, everything, draw):
    latent = noise(batch=3)
    batch = draw(everything(checkpoint.model), latent=latent)
    for i in range(3):
        alone = draw(everything(checkpoint.model), latent={"samples": latent["samples"][i:i + 1]})
        assert rel(batch[i:i + 1], alone) < 1e-5


def test_a_batch_of_poses_gives_each_picture_its_own(checkpoint, draw):
    poses = torch.cat([picture("pose"), picture("pose").flip(2)])
    latent = noise(batch=3)
    batch = draw(apply_pose(checkpoint.model, checkpoint.pose_guider, poses), latent=latent)
    for number, pose in ((1, poses[1:]), (2, poses[:1])):  # fewer poses than latents are used in turn
        alone = {"samples": latent["samples"][number:number + 1]}
        model = apply_pose(checkpoint.model, checkpoint.pose_guider, pose)
        assert rel(batch[number:number + 1], draw(model, latent=alone)) < 1e-5


def test_conditionings_that_do_not_fit_into_memory_together(checkpoint, everything, draw):
    together = draw(everything(checkpoint.model), latent=noise(batch=2))
    model = everything(checkpoint.model)
    factor = model.model.memory_usage_factor
    try:
        model.model.memory_usage_factor = 1e9  # what the host goes by when it splits a batch
        assert rel(draw(model, latent=noise(batch=2)), together) < 1e-5
    finally:
        model.model.memory_usage_factor = factor


@pytest.mark.parametrize("frame", [(64, 64), (136, 104)])
@pytest.mark.parametrize("height, width", [(8, 8), (17, 13), (9, 31), (40, 24)])
def test_any_latent_size_with_references_of_another(checkpoint, parts, draw, height, width, frame):
    model = apply_pose(apply_parts(checkpoint.model, encode(checkpoint, parts, *frame)), checkpoint.pose_guider)
    result = draw(model, latent=noise(height, width), steps=1)
    assert result.shape == (1, 4, height, width) and torch.isfinite(result).all()


@pytest.mark.parametrize("count", [1, 6, 16])
def test_one_to_sixteen_references(checkpoint, draw, count):
    part = run("Parts2WholeMakePart", image=picture("ref_2"), label="a scarf")
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={f"part{i}": part for i in range(count)})
    appearance = encode(checkpoint, parts, 64, 64)
    assert len(appearance.references) == count
    one = encode(checkpoint, parts[:1], 64, 64)
    # The same reference n times is one of n times the weight.
    half = apply_parts(checkpoint.model, one, strength=count / 2)
    assert rel(draw(apply_parts(checkpoint.model, appearance)), draw(apply_parts(half, one, strength=count / 2))) < 1e-4


@pytest.mark.parametrize("sampler, scheduler", [
    ("euler_ancestral", "karras"), ("dpmpp_2m", "karras"), ("dpmpp_sde", "simple"), ("uni_pc", "simple"), ("lcm", "sgm_uniform"),
    ("heun", "simple"),
])
def test_ksampler(checkpoint, everything, sampler, scheduler):
    def ksampler(model):
        return run(
            "KSampler", model=model, seed=5, steps=2, cfg=3.5, sampler_name=sampler, scheduler=scheduler,
            positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""),
            latent_image={"samples": torch.zeros(1, 4, 24, 16)}, denoise=1.0,
        )["samples"]

    model = everything(checkpoint.model)
    result = ksampler(model)
    assert torch.isfinite(result).all()
    assert torch.equal(ksampler(model), result)
    assert rel(result, ksampler(checkpoint.model)) > 0.01


def test_ksampler_advanced_in_two_stages_equals_one(checkpoint, everything):
    def stage(model, latent, start, end, add_noise, leftover):
        return run(
            "KSamplerAdvanced", model=model, add_noise=add_noise, noise_seed=5, steps=4, cfg=3.5, sampler_name="euler",
            scheduler="normal", positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""),
            latent_image=latent, start_at_step=start, end_at_step=end, return_with_leftover_noise=leftover,
        )

    model, empty = everything(checkpoint.model), {"samples": torch.zeros(1, 4, 24, 16)}
    first = stage(model, empty, 0, 2, "enable", "enable")
    both = stage(model, first, 2, 4, "disable", "disable")
    assert rel(both["samples"], stage(model, empty, 0, 4, "enable", "disable")["samples"]) < 1e-5


def test_a_tiling_wrapper(checkpoint, appearance, draw, caplog):
    """As tiled diffusion does it: the U-Net sees one part of the latent at a time."""
    def tiled(apply_model, args):
        x, c = args["input"], args["c"]
        halves = [apply_model(half, args["timestep"], **c) for half in x.chunk(2, dim=2)]
        return torch.cat(halves, dim=2)

    def draw_tiled(model):
        model = model.clone()
        model.set_model_unet_function_wrapper(tiled)
        return draw(model)

    # The references are the same for every tile: two latents of a tile's size, put together, are the tiled one.
    model = apply_parts(checkpoint.model, appearance)
    halves = [draw(model, latent={"samples": half}) for half in noise()["samples"].chunk(2, dim=2)]
    assert rel(draw_tiled(model), torch.cat(halves, dim=2)) < 1e-5

    # A tile's place is not known, so the pose cannot be cut: that is said, once.
    draw_tiled(apply_pose(checkpoint.model, checkpoint.pose_guider))
    assert caplog.text.count("Each tile gets the whole pose") == 1
