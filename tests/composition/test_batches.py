"""Batches as other packs lay them out: stand-ins that do what those do to rows, and nothing else."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from comfy_execution.utils import CurrentNodeContext
from harness.workbench import apply_image_attention, apply_parts, apply_pose, noise, picture, rel, run, text


def tiled(model, at_once: int, chunk_by_chunk=False):
    """A tiled diffusion: pieces of 8x8 places, so many at once, side by side in the batch."""
    def wrapper(apply_model, args):
        x, t, c = args["input"], args["timestep"], dict(args["c"])
        chunks, out = len(args["cond_or_uncond"]), torch.zeros_like(x)
        places = [(y, left) for y in range(0, x.shape[2], 8) for left in range(0, x.shape[3], 8)]
        for begin in range(0, len(places), at_once):
            some = places[begin:begin + at_once]
            tiles = [x[:, :, y:y + 8, left:left + 8] for y, left in some]
            context = [c["c_crossattn"]] * len(some)
            if chunk_by_chunk:
                tiles = [tile for chunk in zip(*(tile.chunk(chunks) for tile in tiles)) for tile in chunk]
                context = [each for chunk in zip(*(each.chunk(chunks) for each in context)) for each in chunk]
            result = apply_model(
                torch.cat(tiles), t[:1].expand(len(some) * len(x)), **{**c, "c_crossattn": torch.cat(context)}
            ).chunk(len(some) * chunks if chunk_by_chunk else len(some))
            if chunk_by_chunk:
                result = [torch.cat([result[chunk * len(some) + i] for chunk in range(chunks)]) for i in range(len(some))]
            for (y, left), tile in zip(some, result):
                out[:, :, y:y + 8, left:left + 8] = tile
        return out

    model = model.clone()
    model.set_model_unet_function_wrapper(wrapper)
    return model


@pytest.mark.parametrize("chunk_by_chunk", [False, True])
@pytest.mark.parametrize("latents", [1, 2])
def test_tiles_side_by_side(checkpoint, appearance, parts, draw, latents, chunk_by_chunk):
    """Four at once are as one by one: each tile's conditional rows see the references, whatever cond_or_uncond says."""
    model = apply_image_attention(apply_parts(checkpoint.model, appearance), checkpoint, parts)
    latent = noise(16, 16, batch=latents)
    one_by_one = draw(tiled(model, 1), latent=latent)
    assert rel(draw(tiled(model, 4, chunk_by_chunk), latent=latent), one_by_one) < 1e-5
    assert rel(draw(tiled(checkpoint.model, 1), latent=latent), one_by_one) > 0.05, "the parts are seen"


@pytest.mark.parametrize("at_once", [1, 4])
def test_tiles_are_not_recorded(checkpoint, appearance, draw, at_once):
    model, attribution = run("Parts2WholeRecordAttribution", model=apply_parts(checkpoint.model, appearance))
    latents = draw(tiled(model, at_once), latent=noise(16, 16))
    with pytest.raises(ValueError, match="tiles, areas and context windows are not recorded"):
        attribution.maps(latents)


def test_tiles_get_the_whole_pose_and_say_so(checkpoint, draw, caplog):
    draw(tiled(apply_pose(checkpoint.model, checkpoint.pose_guider), 4), latent=noise(16, 16))
    assert caplog.text.count("the model sees tiles of the latent") == 1


def couple(model, prompts: list[torch.Tensor], negatives_too=False):
    """Attention couple: conditional rows are repeated in the cross-attention, once for each prompt, and their mean is taken."""
    times = 1 + len(prompts)

    def repeat(n, context, value, options):
        numbers = options["cond_or_uncond"]
        rows, contexts = [], []
        for number, n_, context_ in zip(numbers, n.chunk(len(numbers)), context.chunk(len(numbers))):
            again = times if number == 0 or negatives_too else 1
            own = prompts if number == 0 else [context_[:1]] * len(prompts)
            rows.append(n_.repeat(again, 1, 1))
            contexts += [context_, *(prompt.expand(len(context_), -1, -1) for prompt in own[:again - 1])]
        context = torch.cat(contexts)
        return torch.cat(rows), context, context

    def mean(n, options):
        out, begin, numbers = [], 0, options["cond_or_uncond"]
        one = options["activations_shape"][0] // len(numbers)
        for number in numbers:
            again = times if number == 0 or negatives_too else 1
            out.append(n[begin:begin + again * one].unflatten(0, (again, one)).mean(0))
            begin += again * one
        return torch.cat(out)

    model = model.clone()
    model.set_model_attn2_patch(repeat)
    model.set_model_attn2_output_patch(mean)
    return model


@pytest.mark.parametrize("negatives_too", [False, True])
@pytest.mark.parametrize("prompts", [1, 2, 3])
@pytest.mark.parametrize("cfg", [1.0, 3.5])
def test_prompts_that_are_the_base_again_change_nothing(checkpoint, parts, draw, cfg, prompts, negatives_too):
    """With image tokens in every conditional row, whether the repeats come out even or not."""
    model = apply_image_attention(checkpoint.model, checkpoint, parts)
    base = text(checkpoint.clip, "a person, realistic")[0][0]
    expected = draw(model, latent=noise(batch=2), cfg=cfg)
    result = draw(couple(model, [base] * prompts, negatives_too), latent=noise(batch=2), cfg=cfg)
    assert rel(result, expected) < 1e-5
    assert rel(draw(checkpoint.model, latent=noise(batch=2), cfg=cfg), expected) > 1e-3, "the image tokens are seen"


def rearranged(model, order, back):
    """A pack that gives the cross-attention the rows of [u, c] in another order, and brings back what it makes of them."""
    model = model.clone()
    model.set_model_attn2_patch(lambda n, context, value, options: [x[order] for x in (n, context, context)])
    model.set_model_attn2_output_patch(lambda n, options: torch.stack([n[rows].mean(0) for rows in back]))
    return model


@pytest.mark.parametrize("order, back", [
    ([0, 1, 0, 1], [[0, 2], [1, 3]]), ([0, 0, 1, 1], [[0, 1], [2, 3]]), ([1, 0, 1, 1], [[1], [0, 2, 3]]),
    ([1, 1, 0], [[2], [0, 1]]),
], ids=["the whole batch", "each row", "in front", "conditional rows first"])
def test_repeats_in_any_order_change_nothing(checkpoint, parts, draw, order, back):
    """Without parts the rows of both conditionings are equal in the first cross-attention."""
    model = apply_image_attention(checkpoint.model, checkpoint, parts)
    assert rel(draw(rearranged(model, order, back), steps=1), draw(model, steps=1)) < 1e-5


def test_each_latent_of_a_coupled_batch_is_as_alone(checkpoint, parts, draw):
    other = text(checkpoint.clip, "a blue coat")[0][0]
    model = couple(apply_image_attention(checkpoint.model, checkpoint, parts), [other])
    batch = noise(batch=3)
    together = draw(model, latent=batch)
    for i in range(3):
        assert rel(together[i:i + 1], draw(model, latent={"samples": batch["samples"][i:i + 1]})) < 1e-5


def test_rows_that_cannot_be_told_are_refused(checkpoint, appearance, parts, draw):
    model = apply_image_attention(checkpoint.model, checkpoint, parts).clone()
    model.set_model_attn2_patch(lambda n, context, value, options: [x[:1].expand(5, -1, -1) for x in (n, context, context)])
    with pytest.raises(ValueError, match="gives the cross-attention 5 rows where the layer has 4.*Apply Part Image Attention"):
        draw(model, latent=noise(batch=2))
    model = apply_parts(checkpoint.model, appearance).clone()
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: apply_model(args["input"][:1], args["timestep"][:1], **{**args["c"], "c_crossattn": None})
    )
    with pytest.raises(ValueError, match="gives the model 1 rows for 2 conditionings"):
        draw(model)


def in_frames(model, length: int, first: bool):
    """AnimateDiff: windows over the latents, told in ad_params. first: its wrapper stands before ours."""
    def windows(executor, model, conds, x_in, timestep, model_options):
        outs = [torch.zeros_like(x_in) for _ in conds]
        for begin in range(0, len(x_in), length):
            frames = list(range(begin, min(begin + length, len(x_in))))
            told = {"full_length": len(x_in), "context_length": length, "sub_idxs": frames}
            options = {**model_options, "transformer_options": {**model_options["transformer_options"], "ad_params": told}}
            for out, result in zip(outs, executor(model, conds, x_in[frames], timestep[frames], options)):
                out[frames] = result
        return outs

    model = model.clone()
    options = model.model_options["transformer_options"]
    mine = {WrappersMP.CALC_COND_BATCH: {"animatediff": [windows]}}
    theirs = options.setdefault("wrappers", {}).get(WrappersMP.CALC_COND_BATCH, {})
    order = (mine[WrappersMP.CALC_COND_BATCH], theirs) if first else (theirs, mine[WrappersMP.CALC_COND_BATCH])
    options["wrappers"][WrappersMP.CALC_COND_BATCH] = {**order[0], **order[1]}
    return model


@pytest.mark.parametrize("first", [True, False])
def test_windows_that_animatediff_tells(checkpoint, appearance, draw, first):
    poses = torch.cat([picture("pose").roll(shift, 2) for shift in (0, 40, 80, 120)])
    regions = torch.zeros(4, 192, 128)
    for i in range(4):
        regions[i, :, 32 * i:] = 1
    model = apply_pose(apply_parts(checkpoint.model, appearance, region=regions), checkpoint.pose_guider, poses)
    expected = draw(model, latent=noise(batch=4))
    for length in (2, 3):
        assert rel(draw(in_frames(model, length, first), latent=noise(batch=4)), expected) < 1e-5


def test_portions_that_nobody_tells_are_warned_of(checkpoint, draw, caplog):
    """A node that takes two latents of four at a time: poses by latent cannot be right, and are not wrong without a word."""
    def portions(apply_model, args):
        chunks = len(args["cond_or_uncond"])
        x, t, c = args["input"].unflatten(0, (chunks, -1)), args["timestep"].unflatten(0, (chunks, -1)), args["c"]
        context = c["c_crossattn"].unflatten(0, (chunks, -1))
        results = []
        for some in (slice(0, 3), slice(3, 4)):
            own = {**c, "c_crossattn": context[:, some].flatten(0, 1)}
            results.append(apply_model(x[:, some].flatten(0, 1), t[:, some].flatten(), **own).unflatten(0, (chunks, -1)))
        return torch.cat(results, 1).flatten(0, 1)

    def drawn(poses):
        model = apply_pose(checkpoint.model, checkpoint.pose_guider, poses).clone()
        model.set_model_unet_function_wrapper(portions)
        return draw(model, latent=noise(batch=4))

    drawn(picture("pose"))
    assert "takes the latents of a batch in portions" not in caplog.text, "one pose is right for all"
    drawn(torch.cat([picture("pose"), picture("pose").flip(2)]))
    assert caplog.text.count("takes the latents of a batch in portions") == 1


def test_crops_that_a_node_samples_apart_are_warned_of(checkpoint, draw, caplog):
    """As Ultimate SD Upscale and face detailers do. Another size of the same shape, as after an upscale, is none."""
    model = apply_pose(checkpoint.model, checkpoint.pose_guider)
    draw(model, latent=noise(24, 16))
    draw(model, latent=noise(36, 24))
    assert "was laid over" not in caplog.text
    draw(model, latent=noise(16, 16))
    assert "the pose was laid over a latent of 16x24 before and is now laid over 16x16" in caplog.text
    assert "connect that node to a MODEL without this pose" in caplog.text


def test_a_queue_of_its_own_begins_anew(checkpoint, draw, caplog):
    """The host keeps Apply Pose Guider from queue to queue: another size in the next one is no crop."""
    model = apply_pose(checkpoint.model, checkpoint.pose_guider)
    for prompt, size in (("first", (24, 16)), ("second", (16, 24)), ("third", (16, 16))):
        with CurrentNodeContext(prompt, "1"):
            draw(model, latent=noise(*size))
    assert "was laid over" not in caplog.text
    with CurrentNodeContext("third", "2"):
        draw(model, latent=noise(8, 16))
    assert caplog.text.count("the pose was laid over a latent of 16x16 before and is now laid over 16x8") == 1


def test_conditionings_that_another_node_runs_one_by_one(checkpoint, everything, draw):
    """Inside the model's call, after the batch was laid out: each with its own poses."""
    poses = torch.cat([picture("pose"), picture("pose").flip(2)])

    def one_by_one(executor, x, timesteps, context, y=None, control=None, transformer_options=None, **kwargs):
        numbers = transformer_options["cond_or_uncond"]
        results = []
        for number, rows in zip(numbers, torch.arange(len(x)).chunk(len(numbers))):
            options = {**transformer_options, "cond_or_uncond": [number]}
            options["uuids"] = [transformer_options["uuids"][numbers.index(number)]]
            results.append(executor(x[rows], timesteps[rows], context[rows], y, control, options, **kwargs))
        return torch.cat(results)

    model = apply_pose(everything(checkpoint.model), checkpoint.pose_guider, poses)
    expected = draw(model, latent=noise(batch=2))
    model = model.clone()
    model.add_wrapper(WrappersMP.DIFFUSION_MODEL, one_by_one)
    assert rel(draw(model, latent=noise(batch=2)), expected) < 1e-5
