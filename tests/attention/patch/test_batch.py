"""The layout of a batch, told by its rows and by what other packs say of them."""

import pytest
import torch
from parts2whole.attention.patch.batch import Batch, Sampled
from parts2whole.attention.patch.rows import Span, put_together, take


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
    assert torch.equal(whole.like(cut, 4, options), cut)


def test_uuids_of_other_conditionings_are_not_believed():
    """As of a node that repeats a conditioning in `cond_or_uncond` only."""
    batch = layout(6, {"cond_or_uncond": [1, 0, 0], "uuids": ["u", "c"]}, areas={"c": (2, 2, 0, 2)})
    maps = batch.spread(lambda latent, size: torch.full((1, 1, *size), float(latent)))
    assert maps[:, 0, 0, 0].tolist() == [0, 1, 0, 1, 0, 1]
    assert maps.shape == (6, 1, 4, 4)


def test_rows_that_are_no_multiple_of_the_conditionings_are_refused():
    options = {"cond_or_uncond": [1, 0], "uuids": ["u", "c"]}
    batch, rows = layout(4, options), torch.zeros(3, 4, 8)
    with pytest.raises(ValueError, match="gives the U-Net 1 rows for 2 conditionings"):
        batch.text_spans(rows, rows, {**options, "activations_shape": (1, 8, 4, 4)})
    with pytest.raises(ValueError, match="gives the U-Net 4 rows for 1 conditionings"):
        layout(2, {"cond_or_uncond": [1], "uuids": ["u"]}).like(torch.zeros(2, 1, 4, 4), 4, {"cond_or_uncond": [0]})
