"""Strength and region of an edit model's references, against attention by its formula."""

import logging

import pytest
import torch
from einops import rearrange
from harness.edit_models import (
    KINDS,
    draw,
    draw_custom,
    edit_model,
    mask,
    prompt,
    references,
    supported,
    whole,
    with_parts,
)
from harness.host import load_core_nodes
from harness.windows import CountingWindows
from harness.workbench import rel, run

load_core_nodes("nodes_edit_model", "nodes_flux")

HERE = [kind for kind in KINDS if supported(kind)]
MODELS = {kind: edit_model(kind) for kind in HERE}
TEXT, TARGET = {"flux2": 512}, (6, 4)  # the host pads the text of Flux.2; the target's latent
LEFT = torch.zeros(1, 6, 4)
LEFT[:, :, :2] = 1
each_kind = pytest.mark.parametrize("kind", HERE)


def applied(kind):
    return run("Parts2WholeApplyReferences", model=MODELS[kind])


def side(kind):
    return 1 if kind in ("flux2", "mage") else 2


class ByFormula:
    """softmax(q k^T / sqrt(d)) whose terms are multiplied by a weight [T, S] before they are normalised"""

    def __init__(self, weight):
        self.weight = weight

    def __call__(self, attention, q, k, v, heads, *args, **kwargs):
        if "block_index" not in kwargs["transformer_options"]:
            return attention(q, k, v, heads, *args, **kwargs)
        logits = torch.einsum("bhtd,bhsd->bhts", q.double(), k.double()) / q.shape[-1] ** 0.5
        terms = (logits - logits.amax(-1, keepdim=True)).exp() * self.weight
        out = (terms / terms.sum(-1, keepdim=True)) @ v.double()
        return rearrange(out, "b h t d -> b t (h d)").to(q.dtype)


def by_formula(kind, weight):
    model = MODELS[kind].clone()
    model.model_options["transformer_options"]["optimized_attention_override"] = ByFormula(weight.double())
    return model


def weights(kind, strengths, regions):
    """[T, S] for the references of `references`, each of which has a strength and a region in the target's latent or None."""
    cells = [latent.shape[-2] // side(kind) * latent.shape[-1] // side(kind) for latent in references(kind)]
    text, target = TEXT.get(kind, 5), TARGET[0] * TARGET[1] // side(kind) ** 2
    weight = torch.ones(text + target + sum(cells), text + target + sum(cells))
    begin = text + target
    for count, strength, region in zip(cells, strengths, regions):
        weight[:text + target, begin:begin + count] = strength
        if region is not None:
            here = region[0, ::side(kind), ::side(kind)].flatten()
            weight[text:text + target, begin:begin + count] *= here[:, None]
        begin += count
    return weight


def chained(kind, strengths, regions):
    conditioning = prompt(kind)
    for latent, strength, region in zip(references(kind), strengths, regions):
        conditioning = with_parts(conditioning, (latent,), (torch.ones(latent.shape[-2:]) > 0,), strength, region)
    return conditioning


@each_kind
@pytest.mark.parametrize("strengths, regions", [
    ((2.0, 1.0), (None, None)), ((0.3, 5.0), (None, None)), ((1.0, 1.0), (LEFT, None)), ((0.5, 1.0), (LEFT, 1 - 0.7 * LEFT)),
])
def test_strength_and_region_are_those_of_the_formula(kind, strengths, regions):
    expected = draw_custom(by_formula(kind, weights(kind, strengths, regions)), kind, whole(prompt(kind), *references(kind)))
    result = draw_custom(applied(kind), kind, chained(kind, strengths, regions))
    assert rel(result, expected) < 5e-6
    assert rel(draw_custom(MODELS[kind], kind, whole(prompt(kind), *references(kind))), result) > 1e-4


def test_strength_1_without_region_adds_nothing_to_the_attention():
    """What another node sees of it: no wider heads and no mask."""
    seen = []

    def sees(attention, q, k, v, heads, *args, **kwargs):
        seen.append((q.shape[-1], kwargs.get("mask")))
        return attention(q, k, v, heads, *args, **kwargs)

    for strength, width in ((1.0, 16), (2.0, 24)):
        seen.clear()
        model = applied("flux")
        model.model_options["transformer_options"]["optimized_attention_override"] = sees
        draw_custom(model, "flux", with_parts(prompt("flux"), references("flux")[:1], (mask(6, 8, 4),), strength))
        assert set(seen) == {(width, None)}


@each_kind
def test_strength_0_and_an_empty_region_leave_a_part_out(kind):
    expected = draw_custom(MODELS[kind], kind, prompt(kind))
    for options in ({"strength": 0.0}, {"region": torch.zeros(1, 6, 4)}):
        parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), **options)
        assert torch.equal(draw_custom(applied(kind), kind, parts), expected)


def test_a_batch_of_regions_has_one_for_each_latent():
    kind, both = "flux", torch.cat([LEFT, 1 - LEFT])

    def drawn(region):
        parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), 1.0, region)
        return draw(applied(kind), kind, parts, batch=3)

    together = drawn(both)
    for i, region in ((0, LEFT), (1, 1 - LEFT), (2, LEFT)):
        assert rel(together[i], drawn(region)[i]) < 1e-5
    assert rel(together[1], drawn(LEFT)[1]) > 1e-4


@pytest.mark.parametrize("kind", [kind for kind in ("flux", "qwen") if kind in HERE])
def test_a_region_follows_areas(kind):
    """A conditioning with an area sees the region that lies there, so the region cut to the area gives the same there."""
    region = torch.rand(1, 12, 8, generator=torch.Generator().manual_seed(0))
    parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), 1.0, region)
    area = run("ConditioningSetArea", conditioning=parts, width=32, height=64, x=32, y=32, strength=1.0)
    there = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), 1.0, region[:, 4:12, 4:8])
    options = {"size": (12, 8), "steps": 1, "cfg": 1.0}
    result, expected = draw(applied(kind), kind, area, **options), draw(window_of(applied(kind)), kind, there, **options)
    assert rel(result[..., 4:12, 4:8], expected[..., 4:12, 4:8]) < 1e-5
    assert rel(draw(window_of(applied(kind)), kind, parts, **options)[..., 4:12, 4:8], expected[..., 4:12, 4:8]) > 1e-4


def window_of(model):
    """A MODEL that sees rows 4 to 12 and columns 4 to 8 of its latent, and nothing else of it; the rest comes out as 0."""
    model = model.clone()

    def call(apply_model, args):
        x, c = args["input"], args["c"]
        out = torch.zeros_like(x)
        c["transformer_options"].pop("parts2whole_sampled")  # as if this were all of the latent
        out[..., 4:12, 4:8] = apply_model(x[..., 4:12, 4:8], args["timestep"], **c)
        return out

    model.set_model_unet_function_wrapper(call)
    return model


@pytest.mark.parametrize("kind", [kind for kind in ("flux", "qwen") if kind in HERE])
def test_a_region_follows_context_windows(kind):
    """Each window of rows sees its piece of the region, and each window of latents its own regions."""
    region = torch.rand(2, 8, 4, generator=torch.Generator().manual_seed(1))
    model, size = applied(kind), (8, 4)

    def drawn(region, batch):
        parts = with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), 1.0, region)
        return draw(model, kind, parts, size=size, batch=batch, steps=1, cfg=1.0)

    without = drawn(region, 2)
    model.model_options["context_handler"] = windows = CountingWindows(1, dim=0)
    assert rel(drawn(region, 2), without) < 1e-5 and windows.calls == 1

    model.model_options["context_handler"] = windows = CountingWindows(4, dim=3 if kind == "qwen" else 2)
    result = drawn(region[:1], 1)
    for half in (slice(0, 4), slice(4, 8)):
        twice = torch.cat([region[:1, half], region[:1, half]], 1)
        assert torch.equal(drawn(twice, 1)[..., half, :], result[..., half, :])
    assert windows.calls == 3
    assert rel(drawn(region[:1, :4], 1), result) > 1e-4, "where the whole region is laid over each window"


def test_a_zero_region_says_so(checkpoint, caplog):
    part = run("Parts2WholeMakePart", image=torch.rand(1, 32, 32, 3), label="shoes")
    parts, _ = run("Parts2WholeDescribeParts", parts={"part0": part}, prompt="{parts}", sentence="{label}")
    with caplog.at_level(logging.WARNING):
        run(
            "Parts2WholeReferenceParts", conditioning=prompt("flux"), vae=checkpoint.vae, parts=parts, fit="crop", megapixels=0.01,
            strength=1.0, region=torch.zeros(1, 8, 8),
        )
    assert "the region is zero everywhere, so these parts do nothing: shoes" in caplog.text


def halves(model):
    """As tiled diffusion does it: the model sees one part of the latent at a time, and is not told which."""
    model = model.clone()
    model.set_model_unet_function_wrapper(
        lambda apply_model, args: torch.cat([apply_model(x, args["timestep"], **args["c"]) for x in args["input"].chunk(2, -2)], -2)
    )
    return model


def test_a_region_over_tiles_and_crops_is_warned_of(caplog):
    """Where they lie is not known, so each gets the whole region."""
    def parts(**options):
        return with_parts(prompt("flux"), references("flux"), (mask(6, 8, 4), mask(4, 4, 2)), **options)

    model, left = applied("flux"), LEFT.clone()  # it is known by itself
    draw(halves(model), "flux", parts(), size=(8, 4), steps=1)
    area = run("ConditioningSetArea", conditioning=parts(region=left), width=32, height=64, x=32, y=32, strength=1.0)
    draw(model, "flux", area, size=(12, 8), steps=1)
    draw(model, "flux", parts(region=left), size=(12, 8), steps=1)
    draw(model, "flux", parts(region=left), size=(24, 16), steps=1)
    assert not caplog.text
    draw(model, "flux", parts(region=left), size=(8, 8), steps=1)
    assert caplog.text.count("the region was laid over a latent of 8x12 before and is now laid over 8x8") == 1
    assert "give that node conditionings without a region" in caplog.text and "Crop for Detail" not in caplog.text
    caplog.clear()
    draw(halves(model), "flux", parts(region=left), size=(8, 4), steps=2)
    assert caplog.text.count("Each tile gets the whole pose and the whole region") == 1
