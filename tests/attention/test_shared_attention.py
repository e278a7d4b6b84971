"""The fast path against the release's algorithm, spelled out: all tokens concatenated, masked ones multiplied by zero."""

import math

import pytest
import torch
import torch.nn.functional as F
from harness.workbench import golden, rel
from parts2whole.attention.bank import select_tokens
from parts2whole.attention.reference_mask import token_mask
from parts2whole.attention.shared_attention import ReferenceGroup, join_references, shared_attention


def attend(heads):
    def attention(q, k, v, mask):
        q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, mask).transpose(1, 2).flatten(2)

    return attention


def plain_formula(n, features, masks, strengths, to_q, to_k, to_v, heads, keep_removed):
    """softmax over [target, features * mask, ...], each reference key weighted by its strength, queries of the target only."""
    q = (n @ to_q.T).double()
    keys, values, weights = [n @ to_k.T], [n @ to_v.T], [torch.ones(n.shape[1])]
    for feature, mask, strength in zip(features, masks, strengths):
        tokens = (feature * mask[:, None])[mask > 0] if not keep_removed else feature * mask[:, None]
        keys.append((tokens @ to_k.T).expand(n.shape[0], -1, -1))
        values.append((tokens @ to_v.T).expand(n.shape[0], -1, -1))
        weights.append(torch.full((tokens.shape[0],), strength))
    k, v, weight = torch.cat(keys, 1).double(), torch.cat(values, 1).double(), torch.cat(weights).double()
    q, k, v = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).exp() * weight
    return (scores / scores.sum(-1, keepdim=True) @ v).transpose(1, 2).flatten(2)


def make_mask(kind, length, generator):
    if kind == "none":
        return torch.zeros(length)
    if kind == "all":
        return torch.ones(length)
    mask = torch.rand(length, generator=generator)
    return (mask > 0.5).float() if kind == "half" else mask.mul(2).sub(1).clamp(0, 1)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("keep_removed", [True, False])
@pytest.mark.parametrize("kinds", [("half",), ("soft", "all"), ("half", "none", "soft")])
@pytest.mark.parametrize("strength", [1.0, 0.3, 2.5])
@pytest.mark.parametrize(
    "dtype, widened, tolerance",
    [(torch.float32, True, 2e-6), (torch.float32, False, 2e-6), (torch.bfloat16, True, 2e-2), (torch.float16, True, 2e-3)],
)
def test_equals_the_plain_formula(seed, keep_removed, kinds, strength, dtype, widened, tolerance):
    generator = torch.Generator().manual_seed(seed)
    heads, head_dim = [(8, 40), (4, 8), (5, 64)][seed % 3]
    batch, length, channels = 1 + seed % 3, 20 + 13 * seed, heads * head_dim
    n = torch.randn(batch, length, channels, generator=generator)
    to_q, to_k, to_v = torch.randn(3, channels, channels, generator=generator) / math.sqrt(channels)
    features = [torch.randn(30 + 7 * i, channels, generator=generator) for i in range(len(kinds))]
    masks = [make_mask(kind, feature.shape[0], generator) for kind, feature in zip(kinds, features)]
    strengths = [strength, 1.0, 0.5][:len(kinds)]

    groups = []
    for feature, mask, s in zip(features, masks, strengths):
        bank = select_tokens(feature, mask)
        k, v = (bank.tokens @ w.T for w in (to_k, to_v))
        groups.append(ReferenceGroup(k.to(dtype), v.to(dtype), s, bank.removed if keep_removed else 0))
    q, k, v = ((n @ w.T).to(dtype) for w in (to_q, to_k, to_v))
    references = join_references(groups)
    references = references.widened(heads) if widened else references
    out = shared_attention(q, k, v, references, heads, attend(heads))

    expected = plain_formula(n, features, masks, strengths, to_q, to_k, to_v, heads, keep_removed)
    assert out.dtype == dtype
    assert rel(out, expected) < tolerance


def test_regions_must_be_in_the_heads():
    references = join_references([ReferenceGroup(torch.randn(3, 32), torch.randn(3, 32), region=0)])
    q, k, v = torch.randn(3, 1, 5, 32)
    with pytest.raises(ValueError, match="widened"):
        shared_attention(q, k, v, references, 4, attend(4), torch.ones(1, 5, 1))


def test_a_null_key_is_as_good_as_thousands_of_zero_keys():
    q, k, v = torch.randn(3, 1, 10, 32)
    zeros = torch.zeros(5000, 32)
    one = join_references([ReferenceGroup(torch.randn(3, 32), torch.randn(3, 32), removed=5000)])
    many = join_references([ReferenceGroup(torch.cat([one.k[:3], zeros]), torch.cat([one.v[:3], zeros]))])
    assert one.k.shape[0] == 4 and many.bias is None
    a, b, c = (shared_attention(q, k, v, x, 4, attend(4)) for x in (many, one, one.widened(4)))
    assert rel(b, a) < 1e-5 and rel(c, a) < 1e-5


@pytest.mark.parametrize("removed", [700, 3000, 5000])
def test_how_many_tokens_are_removed_is_not_rounded_in_half_precision(removed):
    """Queries of zero, so that the weights are what is added to the logits: the share of a thousand own keys is told exactly."""
    group = ReferenceGroup(*torch.zeros(2, 1, 32, dtype=torch.bfloat16), removed=removed)
    q, k, v = torch.zeros(1, 4, 32), torch.zeros(1, 1000, 32), torch.ones(1, 1000, 32)
    out = shared_attention(*(x.bfloat16() for x in (q, k, v)), join_references([group]).widened(4), 4, attend(4))
    assert out.float().mean() == pytest.approx(1000 / (1000 + 1 + removed), rel=5e-3)


def test_without_removed_tokens_and_at_full_strength_heads_stay_as_wide_as_they_are():
    shapes = []
    references = join_references([ReferenceGroup(torch.randn(3, 32), torch.randn(3, 32))])

    def seen(q, k, v, mask):
        shapes.append(k.shape)
        assert mask is None
        return attend(4)(q, k, v, mask)

    shared_attention(*torch.randn(3, 1, 10, 32), references.widened(4), 4, seen)
    assert shapes == [(1, 13, 32)]


ATTENTION = golden("attention")
BLOCKS = sorted({name.split("/")[0] for name in ATTENTION if "/" in name})


@pytest.mark.parametrize("block", BLOCKS)
def test_golden_attention_layers(checkpoint, block):
    """The original's attn1, captured layer by layer, from its inputs."""
    from parts2whole.attention.patch.host.unet import diffusers_block_names, transformer_blocks

    model = checkpoint.model.model
    address = diffusers_block_names(model.model_config.unet_config)[block]
    attn1 = transformer_blocks(model.diffusion_model)[address].attn1
    n = ATTENTION[f"{block}/norm1"]
    groups = []
    for i in range(2):
        features = ATTENTION[f"{block}/bank{i}"][1]
        bank = select_tokens(features, features.any(-1).float())
        groups.append(ReferenceGroup(attn1.to_k(bank.tokens), attn1.to_v(bank.tokens), removed=bank.removed))
    q, k, v = attn1.to_q(n[1:]), attn1.to_k(n[1:]), attn1.to_v(n[1:])
    out = shared_attention(q, k, v, join_references(groups), 4, attend(4))
    assert rel(attn1.to_out(out), ATTENTION[f"{block}/attn1_cond"]) < 5e-6
    assert rel(attn1(n[:1]), ATTENTION[f"{block}/attn1_uncond"]) < 5e-6


def test_soft_masks_stay_soft():
    mask = torch.zeros(8, 8)
    mask[3, 3] = 0.25
    assert token_mask(mask, (8, 8)).unflatten(0, (8, 8))[2:5, 2:5].eq(0.25).all()
    assert token_mask(mask, (8, 8)).sum() == 9 * 0.25


def test_token_masks_take_the_nearest_pixel_to_the_upper_left():
    mask = torch.zeros(10, 6)
    mask[3, 2] = 1  # row 3 = floor(1 * 10 / 3), column 2 = floor(1 * 6 / 3)
    undilated_centre = token_mask(mask, (3, 3)).unflatten(0, (3, 3))
    assert undilated_centre.eq(1).all()  # one token, dilated over its eight neighbours
    mask = torch.zeros(10, 6)
    mask[4, 2] = 1
    assert not token_mask(mask, (3, 3)).any()
