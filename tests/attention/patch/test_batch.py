"""The layout of a batch, told by its rows and by what other packs say of them."""

import pytest
import torch
from parts2whole.attention.patch.batch import Batch, Sampled
from parts2whole.attention.patch.rows import Span, put_together, take
from parts2whole.attention.patch.text_rows import TellRows


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


def tell(repeat, n, options, chunks=(1, 0)):
    options = {"cond_or_uncond": list(chunks), "activations_shape": (len(n), 8, 4, 4), **options}
    batch = layout(len(n), options, latents=len(n) // len(chunks))
    given, *_ = TellRows([repeat], batch)(n, n.clone(), n.clone(), options)
    return [span.positive for span in batch.text_spans(len(given), options) for _ in range(span.start, span.stop)]


REPEATS = {
    "in place": [0, 1, 2, 3, 2, 3], "interleaved": [0, 1, 2, 2, 3, 3], "in front": [2, 3, 0, 1, 2, 3], "first": [2, 3, 2, 3, 0, 1],
    "the whole batch": [0, 1, 2, 3, 0, 1, 2, 3], "each row": [0, 0, 1, 1, 2, 2, 3, 3], "each chunk": [0, 1, 0, 1, 2, 3, 2, 3],
    "shuffled": [3, 1, 2, 0, 2],
}


@pytest.mark.parametrize("alike", [False, True], ids=["", "alike"])
@pytest.mark.parametrize("order", REPEATS.values(), ids=REPEATS)
def test_repeats_of_a_cross_attentions_rows_in_any_order(order, alike):
    """alike: as before the first text was read, when the rows of all conditionings are equal"""
    n = torch.randn(4, 6, 3)
    if alike:
        n[2:] = n[:2]
    assert tell(lambda n, context, value, options: [x[order] for x in (n, context, value)], n, {}) == [row >= 2 for row in order]


def test_repeats_that_cannot_be_told_are_refused():
    def mixed(n, context, value, options):
        return [torch.cat([x, x.mean(0, keepdim=True)]) for x in (n, context, value)]

    with pytest.raises(ValueError, match="gives the cross-attention 5 rows where the layer has 4"):
        tell(mixed, torch.randn(4, 6, 3), {})
    for kept in ([2, 3], [0] * 5):
        with pytest.raises(ValueError, match=f"gives the cross-attention {len(kept)} rows where the layer has 4"):
            tell(lambda n, *others, kept=kept: [x[kept] for x in (n, *others[:2])], torch.randn(4, 6, 3), {})
    batch, options = layout(4, {"cond_or_uncond": [1, 0]}), {"cond_or_uncond": [1, 0], "activations_shape": (4, 8, 4, 4)}
    with pytest.raises(ValueError, match="gives the cross-attention 8 rows where the layer has 4"):
        batch.text_spans(8, options)


def test_telling_rows_takes_no_random_numbers_and_leaves_the_text():
    def repeat(n, context, value, options):
        torch.rand(1)
        context *= 2
        return n.repeat(2, 1, 1), context.repeat(2, 1, 1), value.repeat(2, 1, 1)

    n, context, options = torch.ones(4, 6, 3), torch.ones(4, 2, 3), {"cond_or_uncond": [1, 0], "activations_shape": (4, 8, 4, 4)}
    torch.manual_seed(0)
    repeat(n, context.clone(), context.clone(), options)
    expected = torch.get_rng_state()
    torch.manual_seed(0)
    TellRows([repeat], layout(4, options))(n, context, context.clone(), options)
    assert torch.equal(torch.get_rng_state(), expected)
    assert context.eq(2).all()


@pytest.mark.parametrize("by_chunk", [False, True])
@pytest.mark.parametrize("same", ["latent", "text", "neither", "both"])
def test_tiles_side_by_side_are_told_by_what_repeats(same, by_chunk):
    """Three tiles of two latents: a tile is the same in both conditionings, and a text in all tiles."""
    tiles = torch.zeros(3, 1, 2, 4, 2, 2) if same in ("latent", "both") else torch.randn(3, 1, 2, 4, 2, 2)
    texts = torch.zeros(1, 2, 1, 5, 3) if same in ("text", "both") else torch.randn(1, 2, 1, 5, 3)
    x, text = tiles.expand(3, 2, 2, 4, 2, 2), texts.expand(3, 2, 2, 5, 3)
    if by_chunk:
        x, text = x.transpose(0, 1), text.transpose(0, 1)
    options = {"cond_or_uncond": [1, 0]}
    batch = Batch(Sampled(2, (4, 4), (True, False), {}), options, x.flatten(0, 2), text.flatten(0, 2))
    if same == "both":
        with pytest.raises(ValueError, match="gives the model 12 rows for 2 conditionings"):
            flags(batch, 12, options)
    else:
        one = [False, False, True, True]
        assert flags(batch, 12, options) == (sorted(one * 3) if by_chunk else one * 3)


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
    assert torch.equal(whole.like(cut, 4, options), cut)


def test_uuids_of_other_conditionings_are_not_believed():
    """As of a node that repeats a conditioning in `cond_or_uncond` only."""
    batch = layout(6, {"cond_or_uncond": [1, 0, 0], "uuids": ["u", "c"]}, areas={"c": (2, 2, 0, 2)})
    maps = batch.spread(lambda latent, size: torch.full((1, 1, *size), float(latent)))
    assert maps[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert maps.shape == (6, 1, 4, 4)


def test_rows_that_are_no_multiple_of_the_conditionings_are_refused():
    options = {"cond_or_uncond": [1, 0], "uuids": ["u", "c"]}
    batch = layout(4, options)
    with pytest.raises(ValueError, match="gives the model 1 rows for 2 conditionings"):
        batch.text_spans(1, {**options, "activations_shape": (1, 8, 4, 4)})
    with pytest.raises(ValueError, match="gives the model 4 rows for 1 conditionings"):
        layout(2, {"cond_or_uncond": [1], "uuids": ["u"]}).like(torch.zeros(2, 1, 4, 4), 4, {"cond_or_uncond": [0]})
