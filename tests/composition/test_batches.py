"""Batches as other packs lay them out: stand-ins that do what those do to rows, and nothing else."""

import pytest
import torch
from comfy.patcher_extension import WrappersMP
from harness.workbench import apply_image_attention, apply_parts, apply_pose, noise, picture, rel, run, text
from parts2whole.attention.patch.batch import Batch, Sampled, Span, put_together, take


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
    with pytest.raises(ValueError, match="gives the U-Net 1 rows for 2 conditionings"):
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


def test_take_and_put_together_are_inverse():
    spans = [Span(False, 0, 2), Span(True, 2, 3), Span(False, 3, 4), Span(True, 4, 6)]
    for times in (1, 3):
        x = torch.randn(6 * times, 2)
        assert torch.equal(put_together(spans, {kind: take(x, spans, kind) for kind in (False, True)}), x)
    assert torch.equal(take(torch.arange(6), spans, True), torch.tensor([2, 4, 5]))


def layout(count, options, latents=2, grid=(4, 4), areas=None):
    return Batch(Sampled(latents, (4, 4), (True, False), areas or {}), options, torch.zeros(count, 4, *grid))


def flags(batch, count, options):
    return [span.positive for span in batch.spans(count, options) for _ in range(span.start, span.stop)]


def test_rows_of_one_kind_and_of_some_conditionings():
    options = {"cond_or_uncond": [1, 0], "uuids": ["u", "c"]}
    batch, shape = layout(4, options), (4, 8, 4, 4)
    assert flags(batch, 4, {**options, "activations_shape": shape}) == [False, False, True, True]
    assert flags(batch, 12, {**options, "activations_shape": shape}) == [False, False, True, True], "tiles of the queries"
    only = {**options, "activations_shape": shape, "ref_uncond_idxs": [0, 1]}
    assert flags(batch, 2, only) == [False, False]
    assert flags(batch, 4, only) == [False, False, True, True]
    assert flags(batch, 2, {"cond_or_uncond": [0], "activations_shape": shape}) == [True, True]
    with pytest.raises(ValueError, match="gives the self-attention 2 rows where the layer has 4"):
        batch.spans(2, {**options, "activations_shape": shape})
    with pytest.raises(ValueError, match="gives the self-attention 3 rows where the layer has 4"):
        batch.spans(3, only)
    with pytest.raises(ValueError, match="gives the self-attention 1 rows where the layer has 4"):
        batch.spans(1, {"cond_or_uncond": [0], "activations_shape": shape})
    assert flags(batch, 4, {}) == [False, False, True, True], "where another node's options tell nothing, the call's own do"


def test_repeats_of_all_conditionings_are_told_by_their_queries():
    """Attention couple with prompts of its own for the negative conditioning too."""
    options = {"cond_or_uncond": [1, 0], "activations_shape": (2, 8, 4, 4)}
    q, k = torch.tensor([1.0, 1, 2, 2]).reshape(4, 1, 1), torch.arange(4.0).reshape(4, 1, 1)
    assert layout(2, options, latents=1).text_spans(q, k, options) == [Span(False, 0, 2), Span(True, 2, 4)]
    q = torch.tensor([1.0, 2, 2, 2]).reshape(4, 1, 1)
    assert layout(2, options, latents=1).text_spans(q, k, options) == [Span(False, 0, 1), Span(True, 1, 4)]


def test_which_batches_are_whole_and_which_are_tiles():
    options = {"cond_or_uncond": [1, 0], "uuids": ["u", "c"]}
    whole, tiles, sides = layout(4, options), layout(4, options, grid=(2, 2)), layout(8, options, grid=(2, 2))
    area, part = layout(4, options, grid=(2, 2), areas={"c": (2, 2, 0, 2), "u": (2, 2, 2, 0)}), layout(2, options)
    assert [batch.whole for batch in (whole, tiles, sides, area, part)] == [True, False, False, False, False]
    assert [batch.tiled for batch in (whole, tiles, sides, area, part)] == [False, True, True, False, False]
    assert [batch.latents_known for batch in (whole, tiles, sides, area, part)] == [True, True, True, True, False]
    numbers = torch.arange(16.0).reshape(1, 1, 4, 4)
    cut = area.spread(lambda latent, size: numbers + 100 * latent)
    assert cut[:, 0, 0, 0].tolist() == [8, 108, 2, 102], "each conditioning's area of each latent"
    assert torch.equal(whole.like(cut[[0, 1, 2, 3]], 4), cut)
