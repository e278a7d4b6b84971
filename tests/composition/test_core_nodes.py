"""Inpainting, a second pass, guiders with several samplers: parts, pose and image tokens act as in a plain run."""

import pytest
import torch
from harness.windows import CountingWindows
from harness.workbench import apply_parts, apply_pose, noise, picture, rel, run, text

HEIGHT, WIDTH = 24, 16


def lower_half():
    mask = torch.zeros(1, HEIGHT * 8, WIDTH * 8)
    mask[:, HEIGHT * 4:] = 1
    return mask


def inpaint(model, checkpoint, prepare, **options):
    """The final latents of KSampler, and what it was given."""
    positive, negative = text(checkpoint.clip, "a person"), text(checkpoint.clip, "")
    positive, negative, latent = prepare(checkpoint, picture("ref_0")[..., :3], positive, negative)
    options = {"seed": 3, "steps": 3, "cfg": 3.5, "sampler_name": "euler", "scheduler": "normal", "denoise": 1.0, **options}
    result = run("KSampler", model=model, positive=positive, negative=negative, latent_image=latent, **options)
    return result["samples"], latent["samples"]


def fitted(pixels):
    return torch.nn.functional.interpolate(pixels.movedim(-1, 1), (HEIGHT * 8, WIDTH * 8)).movedim(1, -1)


def for_inpaint(checkpoint, pixels, positive, negative):
    return positive, negative, run(
        "VAEEncodeForInpaint", pixels=fitted(pixels), vae=checkpoint.vae, mask=lower_half(), grow_mask_by=0
    )


def set_noise_mask(checkpoint, pixels, positive, negative):
    latent = run("VAEEncode", pixels=fitted(pixels), vae=checkpoint.vae)
    return positive, negative, run("SetLatentNoiseMask", samples=latent, mask=lower_half())


def inpaint_conditioning(checkpoint, pixels, positive, negative):
    return run(
        "InpaintModelConditioning", positive=positive, negative=negative, pixels=fitted(pixels), vae=checkpoint.vae,
        mask=lower_half(), noise_mask=True,
    )


def soft_noise_mask(checkpoint, pixels, positive, negative):
    latent = run("VAEEncode", pixels=fitted(pixels), vae=checkpoint.vae)
    mask = torch.linspace(0, 1, HEIGHT * 8)[None, :, None].expand(1, -1, WIDTH * 8)
    return positive, negative, run("SetLatentNoiseMask", samples=latent, mask=mask)


@pytest.mark.parametrize("prepare", [for_inpaint, set_noise_mask, inpaint_conditioning])
def test_inpainting(checkpoint, everything, prepare):
    """What lies outside the mask is kept, and the parts act inside it."""
    result, given = inpaint(everything(checkpoint.model), checkpoint, prepare)
    plain, _ = inpaint(checkpoint.model, checkpoint, prepare)
    assert rel(result[:, :, :HEIGHT // 2], given[:, :, :HEIGHT // 2]) < 1e-4
    assert rel(result[:, :, HEIGHT // 2:], plain[:, :, HEIGHT // 2:]) > 1e-2


def test_differential_diffusion(checkpoint, everything):
    """With a soft mask, in both orders."""
    def differential(model):
        return run("DifferentialDiffusion", model=model)

    before, _ = inpaint(everything(differential(checkpoint.model)), checkpoint, soft_noise_mask)
    after, _ = inpaint(differential(everything(checkpoint.model)), checkpoint, soft_noise_mask)
    assert torch.equal(before, after)
    without, _ = inpaint(everything(checkpoint.model), checkpoint, soft_noise_mask)
    alone, _ = inpaint(differential(checkpoint.model), checkpoint, soft_noise_mask)
    assert rel(before, without) > 1e-3 and rel(before, alone) > 1e-2, "both are heard"


def test_a_second_pass(checkpoint, everything, caplog):
    """Latents made larger and drawn again at denoise 0.5: as by a MODEL that drew no first pass, and nothing to warn of."""
    def draw(model, latent, denoise):
        return run(
            "KSampler", model=model, seed=3, steps=4, cfg=3.5, sampler_name="euler", scheduler="normal", denoise=denoise,
            positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""), latent_image=latent,
        )

    model = everything(checkpoint.model)
    first = draw(model, {"samples": torch.zeros(1, 4, HEIGHT, WIDTH)}, 1.0)
    larger = run(
        "LatentUpscale", samples=first, upscale_method="bicubic", width=WIDTH * 12, height=HEIGHT * 12, crop="disabled"
    )
    second = draw(model, larger, 0.5)["samples"]
    assert second.shape == (1, 4, 36, 24)
    assert torch.equal(second, draw(everything(checkpoint.model), larger, 0.5)["samples"])
    assert rel(second, draw(checkpoint.model, larger, 0.5)["samples"]) > 1e-3
    assert "was laid over" not in caplog.text


def test_context_windows_over_the_height(checkpoint, appearance, draw):
    """The references are the same for every window: each is as a latent of its size by itself."""
    model = apply_parts(checkpoint.model, appearance)
    expected = torch.cat([draw(model, latent={"samples": half}) for half in noise()["samples"].chunk(2, 2)], 2)
    windowed = model.clone()
    windowed.model_options["context_handler"] = CountingWindows(HEIGHT // 2, dim=2)
    assert rel(draw(windowed), expected) < 1e-5


def guide(node, model, clip, sampler):
    positive, negative = text(clip, "a person"), text(clip, "")
    guider = {
        "BasicGuider": lambda: run("BasicGuider", model=model, conditioning=positive),
        "CFGGuider": lambda: run("CFGGuider", model=model, positive=positive, negative=negative, cfg=3.5),
        "DualCFGGuider": lambda: run(
            "DualCFGGuider", model=model, cond1=positive, cond2=text(clip, "face"), negative=negative, cfg_conds=2.0,
            cfg_cond2_negative=3.0, style="nested",
        ),
    }[node]()
    return run(
        "SamplerCustomAdvanced", noise=run("RandomNoise", noise_seed=1), guider=guider,
        sampler=run("KSamplerSelect", sampler_name=sampler), latent_image={"samples": torch.zeros(1, 4, 12, 8)},
        sigmas=run("BasicScheduler", model=model, scheduler="karras", steps=3, denoise=1.0),
    )[0]["samples"]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heunpp2", "euler_ancestral", "uni_pc", "ddim"])
@pytest.mark.parametrize("node", ["BasicGuider", "CFGGuider", "DualCFGGuider"])
def test_the_hosts_guiders(checkpoint, appearance, node, sampler):
    """A pose of strength 0 is the same MODEL; the same inputs give the same bytes; parts are heard."""
    model = apply_parts(checkpoint.model, appearance)
    result = guide(node, model, checkpoint.clip, sampler)
    assert torch.isfinite(result).all()
    assert torch.equal(guide(node, apply_pose(model, checkpoint.pose_guider, strength=0.0), checkpoint.clip, sampler), result)
    assert rel(result, guide(node, checkpoint.model, checkpoint.clip, sampler)) > 1e-3
