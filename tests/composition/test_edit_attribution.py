"""What Record Attribution gathers of an edit model."""

import pytest
import torch
from harness.edit_models import KINDS, draw, edit_model, mask, prompt, references, supported, whole, with_parts
from harness.host import load_core_nodes
from harness.workbench import rel, run

load_core_nodes("nodes_edit_model", "nodes_flux")

HERE = [kind for kind in KINDS if supported(kind)]
MODELS = {kind: edit_model(kind) for kind in HERE}
each_kind = pytest.mark.parametrize("kind", HERE)


def recorded(kind, conditioning, percents=None, **options):
    model, attribution = run(
        "Parts2WholeRecordAttribution", model=run("Parts2WholeApplyReferences", model=MODELS[kind], **(percents or {}))
    )
    latents = draw(model, kind, conditioning, **options)
    return attribution, latents, attribution.maps(latents)


def parts(kind, **options):
    return with_parts(prompt(kind), references(kind), (mask(6, 8, 4), mask(4, 4, 2)), **options)


@each_kind
def test_shares_add_up_name_the_parts_and_change_nothing(kind):
    attribution, latents, maps = recorded(kind, parts(kind), batch=2)
    assert attribution.names == ("the picture itself", "part 0", "part 1", "the text")
    assert maps.shape == (2, 4, 6, 4) and (maps.sum(1) - 1).abs().max() < 1e-5 and (maps > 0).all()
    assert len(attribution.by_step) == 2
    assert torch.equal(latents, draw(run("Parts2WholeApplyReferences", model=MODELS[kind]), kind, parts(kind), batch=2))


@each_kind
def test_shares_are_those_of_the_softmax(kind):
    """Of one step, computed from the queries and keys that another node sees."""
    text, target, kept = 512 if kind == "flux2" else 5, 24, (32, 8)
    if kind not in ("flux2", "mage"):
        target, kept = 6, (8, 2)
    layers = []

    def sees(attention, q, k, v, heads, *args, **kwargs):
        if "block_index" in kwargs["transformer_options"] and k.shape[-2] == text + target + sum(kept):
            logits = q[:1, :, text:text + target] @ k[:1].transpose(-1, -2) / q.shape[-1] ** 0.5
            layers.append([share.sum(-1).mean() for share in logits.softmax(-1).split([text, target, *kept], -1)])
        return attention(q, k, v, heads, *args, **kwargs)

    MODELS[kind].model_options["transformer_options"]["optimized_attention_override"] = sees
    try:
        _, _, maps = recorded(kind, parts(kind), steps=1)
    finally:
        del MODELS[kind].model_options["transformer_options"]["optimized_attention_override"]
    by_text, itself, *of_parts = torch.tensor(layers).mean(0)
    assert len(layers) == 2
    assert rel(maps.mean((0, 2, 3)), torch.stack([itself, *of_parts, by_text])) < 1e-5


def test_what_takes_no_part_has_no_share():
    left = torch.zeros(1, 6, 4)
    left[:, :, :2] = 1
    for strengths in ((1.0, 3.0), (1.0, 0.0)):
        first, second = references("flux")
        conditioning = with_parts(prompt("flux"), (first,), (mask(6, 8, 4),), strengths[0], left)
        conditioning = with_parts(conditioning, (second,), (mask(4, 4, 2),), strengths[1])
        _, _, maps = recorded("flux", conditioning)
        assert maps[0, 1, :, 3].max() < 1e-6 < maps[0, 1, :, 0].min()
        assert (maps[0, 2] == 0).all() if strengths[1] == 0 else (maps[0, 2] > 1e-3).all()


def test_a_part_that_acts_early_has_no_share_later():
    attribution, _, _ = recorded("flux", parts("flux"), {"end_percent": 0.2}, steps=4)
    shares = list(attribution.by_step.values())
    assert shares[0][1] > 0 and shares[-1][1] == 0 and abs(float(shares[-1].sum()) - 1) < 1e-5


def test_the_strength_shows():
    weak, strong = (recorded("flux", parts("flux", strength=s))[2][0, 1:3].mean() for s in (0.3, 3.0))
    assert strong > 2 * weak


def test_references_of_the_hosts_own_node_are_recorded_too():
    attribution, _, maps = recorded("flux", whole(prompt("flux"), *references("flux")))
    assert attribution.names[1:-1] == ("reference 1", "reference 2") and (maps > 0).all()
    mixed = whole(with_parts(prompt("flux"), references("flux")[:1], (mask(6, 8, 4),)), references("flux")[1])
    assert recorded("flux", mixed)[0].names[1:-1] == ("part 0", "reference 2")


def test_the_positive_conditioning_is_recorded():
    negative = with_parts(prompt("flux", 1), references("flux"), (mask(6, 8, 4), mask(4, 4, 2)), 10.0)
    one = recorded("flux", parts("flux"), negative=negative, steps=1)[2]
    assert torch.equal(one, recorded("flux", parts("flux"), steps=1)[2])
    # In one batch with the negative one, whose text is another.
    same = with_parts(prompt("flux", 1), references("flux"), (mask(6, 8, 4), mask(4, 4, 2)))
    assert rel(recorded("flux", parts("flux"), negative=same, steps=1)[2], one) < 1e-5


def test_show_attribution():
    for kind, scale in (("flux", 8), ("mage", 16)):
        if kind in HERE:
            attribution, latents, _ = recorded(kind, parts(kind))
            sheet, masks = run("Parts2WholeShowAttribution", attribution=attribution, latent={"samples": latents})
            assert sheet.shape[-1] == 3 and masks.shape == (2, 6 * scale, 4 * scale)


def test_without_apply_there_is_nothing_to_show():
    model, attribution = run("Parts2WholeRecordAttribution", model=MODELS["flux"])
    with pytest.raises(ValueError, match="No attention was recorded.*Apply Reference Parts"):
        attribution.maps(draw(model, "flux", prompt("flux")))


def test_conditionings_with_references_of_their_own():
    """What is shown is named after the positive ones, each of which may have other parts; and a mean over them."""
    both, (first, second) = parts("flux"), references("flux")
    fewer = with_parts(prompt("flux", 1), (first,), (mask(6, 8, 4),))
    for negative in (fewer, prompt("flux", 1)):
        attribution, _, maps = recorded("flux", both, negative=negative, steps=1)
        assert attribution.names[1:-1] == ("part 0", "part 1")
        assert torch.equal(maps, recorded("flux", both, steps=1)[2])

    text, values = whole(prompt("flux", 1), second)[0]
    for other in (fewer, [[text, values]]):
        attribution, _, maps = recorded("flux", both + other, steps=1)
        alone, with_both = (recorded("flux", each, steps=1) for each in (other, both))
        assert len(attribution.names) == maps.shape[1] == len(next(iter(attribution.by_step.values())))
        for names, shares in ((attribution.names, maps), (alone[0].names, alone[2]), (with_both[0].names, with_both[2])):
            assert (shares.sum(1) - 1).abs().max() < 1e-5 and names[0] == "the picture itself" and names[-1] == "the text"
        of = [dict(zip(each.names, shares[0])) for each, _, shares in (alone, with_both)]
        for name, share in zip(attribution.names, maps[0]):
            assert rel(share, sum(each.get(name, torch.zeros(6, 4)) for each in of) / 2) < 1e-5
