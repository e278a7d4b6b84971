"""A second look at a place of the picture: pose and regions are those of that place, and nothing else changes."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from harness.windows import CountingWindows
from harness.workbench import apply_image_attention, apply_parts, apply_pose, noise, picture, rel, run, text
from parts2whole.attention.patch.applied import AppliedParts
from parts2whole.attention.patch.pose import encode_pose
from parts2whole.attention.patch.run import APPLIED, Run
from parts2whole.pictures.crop import Crop, cut

SIZE = WIDTH, HEIGHT = 128, 192
BOX = Crop(32, 48, 64, 96, *SIZE)


def soft_region(batch=1, size=(HEIGHT, WIDTH)):
    return torch.rand(batch, *size, generator=torch.Generator().manual_seed(5))


def crop(model, box=BOX, factor=2.0, image=None):
    """MODEL and picture of a crop."""
    image = picture("ref_0")[..., :3] if image is None else image
    image = torch.nn.functional.interpolate(image.movedim(-1, 1), (box.of_height, box.of_width)).movedim(1, -1)
    model, detail, _, made = run(
        "Parts2WholeCropForDetail", model=model, image=image, factor=factor, padding=0.0, x=box.x, y=box.y, width=box.width,
        height=box.height,
    )
    assert made == box
    return model, detail


def redraw(checkpoint, model, image, denoise=0.6):
    return run(
        "KSampler", model=model, seed=3, steps=2, cfg=3.5, sampler_name="euler", scheduler="normal", denoise=denoise,
        positive=text(checkpoint.clip, "a person"), negative=text(checkpoint.clip, ""),
        latent_image=run("VAEEncode", pixels=image, vae=checkpoint.vae),
    )["samples"]


def applied_to(model):
    return model.model_options["transformer_options"][APPLIED]


@pytest.fixture
def pose():
    """Of the size of a result."""
    return torch.nn.functional.interpolate(picture("pose").movedim(-1, 1), (HEIGHT, WIDTH)).movedim(1, -1)


@pytest.mark.parametrize("region", [soft_region(), soft_region().round()], ids=["soft", "hard"])
def test_a_crop_draws_as_with_pose_and_region_cut_by_hand(checkpoint, appearance, parts, pose, region):
    def applied(pose, region):
        model = apply_pose(apply_parts(checkpoint.model, appearance, region=region), checkpoint.pose_guider, pose)
        return apply_image_attention(model, checkpoint, parts)

    whole = applied(pose, region)
    model, image = crop(whole)
    result = redraw(checkpoint, model, image)
    assert torch.equal(result, redraw(checkpoint, applied(pose[:, 48:144, 32:96], region[:, 48:144, 32:96]), image))
    assert rel(redraw(checkpoint, whole, image), result) > 1e-2, "and not as with the whole of them"


def test_the_applies_take_the_same_crop(checkpoint, appearance, pose):
    """For nodes of other packs, which crop by themselves."""
    box = run("Parts2WholeCropBox", image=torch.zeros(1, HEIGHT, WIDTH, 3), x=32, y=48, width=64, height=96)
    region = soft_region()
    whole = apply_pose(apply_parts(checkpoint.model, appearance, region=region), checkpoint.pose_guider, pose)
    expected, image = crop(whole)
    model = run(
        "Parts2WholeApplyPose", model=apply_parts(checkpoint.model, appearance, region=region, crop=box), image=pose, crop=box,
        pose_guider=checkpoint.pose_guider, strength=1.0, start_percent=0.0, end_percent=1.0,
    )
    assert torch.equal(redraw(checkpoint, model, image), redraw(checkpoint, expected, image))


def test_the_whole_picture_changes_nothing(checkpoint, everything):
    whole = everything(checkpoint.model)
    model, image = crop(whole, Crop(0, 0, WIDTH, HEIGHT, *SIZE), factor=1.0)
    assert applied_to(model) is applied_to(whole)
    assert torch.equal(redraw(checkpoint, model, image), redraw(checkpoint, whole, image))


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (37, 29)], ids=["pixel by pixel", "between the pixels"])
def test_a_crop_of_a_crop_is_a_crop(checkpoint, appearance, size):
    pose = torch.nn.functional.interpolate(picture("pose").movedim(-1, 1), size).movedim(1, -1)
    region = soft_region(size=size)
    whole = apply_pose(apply_parts(checkpoint.model, appearance, region=region), checkpoint.pose_guider, pose)
    outer, _ = crop(whole)
    twice, image = crop(outer, Crop(40, 56, 32, 48, 128, 192))
    once, _ = crop(whole, Crop(52, 76, 16, 24, *SIZE))
    for a, b in zip(applied_to(twice).every, applied_to(once).every):
        assert a.crop == b.crop
    assert torch.equal(redraw(checkpoint, twice, image), redraw(checkpoint, once, image))


def test_the_model_that_came_in_stays_as_it_is_and_references_are_not_encoded_again(checkpoint, everything, appearance, draw):
    whole = everything(checkpoint.model)
    before, options = draw(whole), str(whole.model_options)
    model, image = crop(whole)
    redraw(checkpoint, model, image)
    assert torch.equal(draw(whole), before) and str(whole.model_options) == options
    for one in (whole, model):
        (parts,) = applied_to(one).of(AppliedParts)
        assert parts.appearance is appearance


def test_a_model_to_which_nothing_is_applied(checkpoint):
    model, image = crop(checkpoint.model)
    assert torch.equal(redraw(checkpoint, model, image), redraw(checkpoint, checkpoint.model, image))


@pytest.mark.parametrize("batch", [1, 2])
def test_the_poses_features_are_those_of_the_whole_at_that_place(checkpoint, pose, batch):
    """But near the crop's sides, where filter and convolutions see what is beyond."""
    guider, cpu = checkpoint.pose_guider.model, torch.device("cpu")
    poses = torch.cat([pose, pose.flip(2)])[:batch]
    whole = encode_pose(guider, poses, (48, 32), cpu)
    box = Crop(32, 48, 64, 96, *SIZE)
    piece, rest = cut(poses, box.box)
    inside = encode_pose(guider, piece, (24, 16), cpu, rest)[..., 4:-4, 4:-4]
    assert rel(inside, whole[..., 16:32, 12:20]) < 1e-5
    # The same place told by a picture whose pixels it runs through.
    low = torch.nn.functional.interpolate(poses.movedim(-1, 1), (40, 40), mode="bilinear", antialias=True).movedim(1, -1)
    piece, rest = cut(low, Crop(1, 1, 1, 1, 3, 3).box)
    assert piece.shape[1:3] == (14, 14) and rest.left > 0
    inside = encode_pose(guider, piece, (24, 16), cpu, rest)[..., 4:-4, 4:-4]
    assert rel(inside, encode_pose(guider, low, (72, 48), cpu)[..., 28:44, 20:28]) < 2e-2, "the host rounds to 8 bits"


@pytest.mark.parametrize("region", [soft_region(), soft_region().round()], ids=["soft", "hard"])
def test_regions_are_those_of_the_whole_at_that_place(region):
    fitted, cpu = Run().region, torch.device("cpu")
    piece, rest = cut(region, BOX.box)
    whole = fitted(region, cpu, 0, (48, 32))
    assert torch.equal(fitted(piece, cpu, 0, (24, 16), rest), whole[..., 12:36, 8:24])
    third, rest = cut(region, Crop(1, 1, 1, 1, 3, 3).box)  # 64 rows, and 42 2/3 columns
    as_one = fitted(third, cpu, 0, (1, 1), rest)
    columns = torch.zeros(WIDTH)
    columns[43:85], columns[42], columns[85] = 1, 1 / 3, 1 / 3
    assert float(as_one) == pytest.approx(float((region[0, 64:128] @ columns).mean() / columns.sum()), abs=1e-4)


def test_the_unet_gets_places_between_the_pixels(checkpoint, appearance, draw):
    """Of a pose and a region whose pixels the crop's sides run through."""
    pose = torch.nn.functional.interpolate(picture("pose").movedim(-1, 1), (37, 29)).movedim(1, -1)
    region = soft_region(size=(37, 29))
    model, _ = crop(apply_pose(apply_parts(checkpoint.model, appearance, region=region), checkpoint.pose_guider, pose))
    seen = []

    def keep(executor, *args, **kwargs):
        regions = args[5]["patches_replace"]["attn1"]["middle", 0, 0].regions
        seen.append((regions[0].values, args[5]["patches"]["input_block_patch"][-1].features))
        return executor(*args, **kwargs)

    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, keep)
    draw(model, steps=1, cfg=1.0)
    (got_region, got_pose), *_ = seen
    fine = region.repeat_interleave(48, 1).repeat_interleave(32, 2)[:, 444:1332, 232:696]  # a quarter of each side left out
    assert torch.allclose(got_region, torch.nn.functional.adaptive_avg_pool2d(fine, (24, 16))[None], atol=1e-5)
    whole = encode_pose(checkpoint.pose_guider.model, pose, (48, 32), torch.device("cpu"))
    assert rel(got_pose[..., 4:-4, 4:-4], whole[..., 16:32, 12:20]) < 2e-2


def test_each_latent_of_a_batch_has_its_own_pose_and_region(checkpoint, appearance, pose):
    poses, regions = torch.cat([pose, pose.flip(2)]), torch.cat([soft_region(), 1 - soft_region()])

    def drawn(poses, regions, image):
        model = apply_pose(apply_parts(checkpoint.model, appearance, region=regions), checkpoint.pose_guider, poses)
        model, detail = crop(model, image=image)
        latent = run("VAEEncode", pixels=detail, vae=checkpoint.vae)
        return run(
            "SamplerCustom", model=model, add_noise=False, noise_seed=0, cfg=3.5, positive=text(checkpoint.clip, "a person"),
            negative=text(checkpoint.clip, ""), sampler=run("KSamplerSelect", sampler_name="euler"), latent_image=latent,
            sigmas=run("Parts2WholeSigmas", model=model, steps=2, denoise=0.5),
        )[0]["samples"]

    images = picture("ref_0")[..., :3].expand(2, -1, -1, -1)
    together = drawn(poses, regions, images)
    for i in range(2):
        assert rel(together[i:i + 1], drawn(poses[i:i + 1], regions[i:i + 1], images[:1])) < 1e-5


def test_parts_that_act_outside_of_the_crop_only_are_left_out(checkpoint, appearance):
    first, second = (appearance._replace(references=appearance.references[i:i + 1]) for i in (0, 1))
    above = torch.zeros(1, 96, 64)
    above[:, :20] = 1
    here = apply_parts(checkpoint.model, first)
    model, image = crop(apply_parts(here, second, region=above))
    assert len(applied_to(model).every) == 1
    assert torch.equal(redraw(checkpoint, model, image), redraw(checkpoint, here, image))
    nothing, image = crop(apply_parts(checkpoint.model, second, region=above))
    assert torch.equal(redraw(checkpoint, nothing, image), redraw(checkpoint, checkpoint.model, image))


def test_attribution_is_recorded_in_the_crop(checkpoint, appearance):
    """The left half of the picture is the left quarter of a crop."""
    region = torch.zeros(1, HEIGHT, WIDTH)
    region[..., :WIDTH // 2] = 1
    whole = apply_parts(checkpoint.model, appearance, region=region)
    model, image = crop(whole, Crop(48, 48, 64, 96, *SIZE))
    model, attribution = run("Parts2WholeRecordAttribution", model=model)
    maps = attribution.maps(redraw(checkpoint, model, image))
    assert maps.shape == (1, 5, 24, 16) and torch.allclose(maps.sum(1), torch.ones(1, 24, 16), atol=1e-4)
    parts = maps[0, 1:-1].sum(0)
    assert parts[:, 12:].max() < 1e-6 < 1e-2 < parts[:, :2].min()


def test_windows_see_their_piece_of_the_crop(checkpoint, appearance, draw):
    """Core's context windows over the rows of a crop: each as by itself."""
    region = torch.zeros(1, HEIGHT, WIDTH)
    region[:, :96] = 1
    whole = apply_parts(checkpoint.model, appearance, region=region)
    seen = []

    def keep(executor, *args, **kwargs):
        seen.append(args[5]["patches_replace"]["attn1"]["middle", 0, 0].regions[0].values)
        return executor(*args, **kwargs)

    model, _ = crop(whole)
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, keep)
    model.model_options["context_handler"] = CountingWindows(12, dim=2)
    draw(model, steps=1, cfg=1.0, latent=noise(24, 16))
    assert [float(each.mean()) for each in seen[:2]] == [1.0, 0.0], "the upper half of the crop, and the lower"


@pytest.mark.parametrize("size, at", [((130, 190), (13, 21, 37, 53)), ((96, 51), (90, 40, 6, 11)), ((512, 768), (0, 0, 511, 767))])
def test_pictures_poses_and_latents_of_odd_sizes(checkpoint, everything, appearance, size, at, caplog):
    model = apply_parts(everything(checkpoint.model), appearance, region=soft_region(size=(37, 29)))
    image = torch.rand(1, size[1], size[0], 3, generator=torch.Generator().manual_seed(0))
    x, y, width, height = at
    model, detail, _, _ = run(
        "Parts2WholeCropForDetail", model=model, image=image, factor=min(2.0, 200 / max(width, height)), padding=0.1, x=x, y=y,
        width=width, height=height,
    )
    assert torch.isfinite(redraw(checkpoint, model, detail)).all()
    assert "was laid over" not in caplog.text


def test_after_the_whole_picture_a_crop_is_nothing_to_warn_of(checkpoint, everything, draw, caplog):
    whole = everything(checkpoint.model)
    draw(whole, steps=1)
    model, image = crop(whole, Crop(0, 0, 64, 64, *SIZE))
    redraw(checkpoint, model, image)
    assert "was laid over" not in caplog.text
    redraw(checkpoint, whole, image)
    assert "was laid over a latent of 16x24 before and is now laid over 16x16" in caplog.text


def test_the_crop_of_an_apply_may_leave_nothing(checkpoint, appearance, draw):
    above = torch.zeros(1, HEIGHT, WIDTH)
    above[:, :10] = 1
    assert torch.equal(draw(apply_parts(checkpoint.model, appearance, region=above, crop=BOX)), draw(checkpoint.model))
    with pytest.raises(ValueError, match="got 'face' for 'crop'. Connect the output of a node that gives P2W_CROP"):
        apply_parts(checkpoint.model, appearance, crop="face")
