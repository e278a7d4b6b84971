"""The patch of self-attention over batches as the host and its nodes lay them out, against the plain formula."""

import math
import random

import pytest
import torch
from parts2whole.attention.bank import select_tokens
from parts2whole.attention.shared_attention import join_references
from parts2whole.attention.unet_patches import CONDITIONAL, ShareReferences
from workbench import rel


def plain_formula(q, k, v, extra, heads):
    """Attention of one picture's queries to its own keys and to `extra`: keys, values and weights before the softmax."""
    keys, values = torch.cat([k, extra[0]]), torch.cat([v, extra[1]])
    weights = torch.cat([torch.ones(len(k)), extra[2]])
    q, keys, values = (x.double().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, keys, values))
    scores = (q @ keys.mT / math.sqrt(q.shape[-1])).exp() * weights
    return (scores / scores.sum(-1, keepdim=True) @ values).transpose(0, 1).flatten(1)


def random_case(seed: int):
    """Two references with masks and strengths, and their keys as the plain formula takes them, removed tokens as zeros."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    heads, head_dim = choose.choice([(1, 8), (4, 40), (3, 64), (8, 16)])
    channels = heads * head_dim
    groups, keys, values, weights = [], [], [], []
    for _ in range(choose.randint(1, 3)):
        tokens = choose.randint(1, 40)
        mask = (torch.rand(tokens, generator=generator) > choose.choice([-1, 0.3, 0.9, 2])).float()
        mask *= torch.rand(tokens, generator=generator) if choose.random() < 0.3 else 1
        strength, keep_removed = choose.choice([0.2, 1.0, 3.0]), choose.random() < 0.7
        k, v = (torch.randn(tokens, channels, generator=generator) for _ in range(2))
        kept, kept_values = select_tokens(k, mask), select_tokens(v, mask)
        groups.append((kept.tokens, kept_values.tokens, strength, kept.removed if keep_removed else 0))
        zeros = torch.zeros(kept.removed if keep_removed else 0, channels)
        keys += [kept.tokens, zeros]
        values += [kept_values.tokens, zeros]
        weights.append(torch.full((len(kept.tokens) + len(zeros),), strength))
    return choose, generator, heads, channels, groups, (torch.cat(keys), torch.cat(values), torch.cat(weights))


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_equals_the_plain_formula_whatever_the_batch(seed, widened):
    choose, generator, heads, channels, groups, everything = random_case(seed)
    layout = choose.choice([[0], [0, 1], [1, 0], [1], [1, 0, 0], [0, 1, 2], [0, 0, 1, 1]])
    conditional = [index == 0 for index in range(3)]
    pictures, length = choose.randint(1, 3), choose.randint(1, 30)
    q, k, v = (torch.randn(len(layout) * pictures, length, channels, generator=generator) for _ in range(3))

    references = join_references(groups)
    patch = ShareReferences(references.widened(heads) if widened else references, None)
    options = {"n_heads": heads, "attn_precision": None, "cond_or_uncond": layout, CONDITIONAL: conditional}
    out = patch(q, k, v, options)

    nothing = tuple(x[:0] for x in everything)
    rows = [index for index in layout for _ in range(pictures)]
    expected = torch.stack([
        plain_formula(q_, k_, v_, everything if index == 0 else nothing, heads) for index, q_, k_, v_ in zip(rows, q, k, v)
    ])
    assert rel(out, expected) < 2e-6
    assert options == {"n_heads": heads, "attn_precision": None, "cond_or_uncond": layout, CONDITIONAL: conditional}
