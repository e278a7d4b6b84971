"""The patch of self-attention over batches as the host and its nodes lay them out, against the plain formula."""

import math
import random

import pytest
import torch
from harness.workbench import rel
from parts2whole.attention.bank import select_tokens
from parts2whole.attention.patch.batch import Batch, Sampled
from parts2whole.attention.patch.region_map import RegionMap
from parts2whole.attention.patch.unet_patches import ShareReferences, takes_mask
from parts2whole.attention.shared_attention import ReferenceGroup, join_references


def plain_formula(q, k, v, extra, heads, regions=None):
    """Attention of one picture's queries to its own keys and to `extra`: keys, values, weights before the softmax, and regions.

    regions: [T, N], what multiplies the weight of a key of that region; the last entry of `extra` is each key's, or -1
    """
    keys, values = torch.cat([k, extra[0]]), torch.cat([v, extra[1]])
    weights = torch.cat([torch.ones(len(k)), extra[2]]).expand(len(q), -1).clone()
    if regions is not None:
        weights[:, len(k):] *= torch.cat([regions, torch.ones(len(q), 1)], 1)[:, extra[3]]
    q, keys, values = (x.double().unflatten(-1, (heads, -1)).transpose(0, 1) for x in (q, keys, values))
    scores = (q @ keys.mT / math.sqrt(q.shape[-1])).exp() * weights
    return (scores / scores.sum(-1, keepdim=True) @ values).transpose(0, 1).flatten(1)


def batch_of(options, positive, rows, grid=(1, 1)):
    """As the host lays it out."""
    latents = rows // len(options["cond_or_uncond"])
    return Batch(Sampled(latents, grid, positive, {}), options, torch.zeros(rows, 4, *grid))


def random_case(seed: int, in_regions: bool = False):
    """Up to three references with masks and strengths, and their keys as the plain formula takes them, removed tokens as zeros."""
    choose, generator = random.Random(seed), torch.Generator().manual_seed(seed)
    heads, head_dim = choose.choice([(1, 8), (4, 40), (3, 64), (8, 16)])
    channels = heads * head_dim
    groups, keys, values, weights, regions = [], [], [], [], []
    for _ in range(choose.randint(1, 3)):
        tokens = choose.randint(1, 40)
        mask = (torch.rand(tokens, generator=generator) > choose.choice([-1, 0.3, 0.9, 2])).float()
        mask *= torch.rand(tokens, generator=generator) if choose.random() < 0.3 else 1
        strength, keep_removed = choose.choice([0.2, 1.0, 3.0]), choose.random() < 0.7
        k, v = (torch.randn(tokens, channels, generator=generator) for _ in range(2))
        kept, kept_values = select_tokens(k, mask), select_tokens(v, mask)
        removed = kept.removed if keep_removed else 0
        region = sum(group.region is not None for group in groups) if in_regions and choose.random() < 0.7 else None
        groups.append(ReferenceGroup(kept.tokens, kept_values.tokens, strength, removed, region))
        zeros = torch.zeros(removed, channels)
        keys += [kept.tokens, zeros]
        values += [kept_values.tokens, zeros]
        weights.append(torch.full((len(kept.tokens) + removed,), strength))
        regions.append(torch.full((len(kept.tokens) + removed,), -1 if region is None else region))
    everything = tuple(torch.cat(tensors) for tensors in (keys, values, weights, regions))
    return choose, generator, heads, channels, groups, everything


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_equals_the_plain_formula_whatever_the_batch(seed, widened):
    choose, generator, heads, channels, groups, everything = random_case(seed)
    layout = choose.choice([[0], [0, 1], [1, 0], [1], [1, 0, 0], [0, 1, 2], [0, 0, 1, 1]])
    pictures, length = choose.randint(1, 3), choose.randint(1, 30)
    q, k, v = (torch.randn(len(layout) * pictures, length, channels, generator=generator) for _ in range(3))

    references = join_references(groups)
    options = {"n_heads": heads, "attn_precision": None, "cond_or_uncond": layout}
    batch = batch_of(options, (True, False, False), len(q))
    out = ShareReferences(references.widened(heads) if widened else references, heads, batch)(q, k, v, options)

    nothing = tuple(x[:0] for x in everything)
    rows = [index for index in layout for _ in range(pictures)]
    expected = torch.stack([
        plain_formula(q_, k_, v_, everything if index == 0 else nothing, heads) for index, q_, k_, v_ in zip(rows, q, k, v)
    ])
    assert rel(out, expected) < 2e-6
    assert options == {"n_heads": heads, "attn_precision": None, "cond_or_uncond": layout}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 2e-6), (torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
@pytest.mark.parametrize("seed", range(40))
def test_regions_equal_the_plain_formula(seed, dtype, tolerance):
    """Each reference's weight is multiplied by its region at the query; the region comes to the layer's grid by its mean."""
    choose, generator, heads, channels, groups, everything = random_case(seed, in_regions=True)
    count = sum(group.region is not None for group in groups)
    layout, pictures = choose.choice([[0], [1, 0], [0, 1, 0]]), choose.randint(1, 2)
    grid = choose.randint(1, 5), choose.randint(1, 5)
    q, k, v = (torch.randn(len(layout) * pictures, grid[0] * grid[1], channels, generator=generator) for _ in range(3))
    latents = [
        torch.rand(len(layout) * pictures, 1, 2 * grid[0], 2 * grid[1], generator=generator).sub(0.5).mul(3).clamp(0, 1)
        for _ in range(count)
    ]
    groups = [group._replace(k=group.k.to(dtype), v=group.v.to(dtype)) for group in groups]
    options = {
        "n_heads": heads, "attn_precision": None, "cond_or_uncond": layout, "activations_shape": (len(q), channels, *grid),
    }
    batch = batch_of(options, (True, False), len(q), grid)
    patch = ShareReferences(join_references(groups).widened(heads), heads, batch, tuple(map(RegionMap, latents)))
    out = patch(q.to(dtype), k.to(dtype), v.to(dtype), options)

    nothing = tuple(x[:0] for x in everything)
    rows = [index for index in layout for _ in range(pictures)]
    q, k, v = (x.to(dtype).float() for x in (q, k, v))
    everything = tuple(x.to(dtype).float() for x in everything[:2]) + everything[2:]
    means = [region.unflatten(2, (grid[0], 2)).unflatten(4, (grid[1], 2)).mean((3, 5)).flatten(1) for region in latents]
    means = torch.stack(means, -1) if means else [None] * len(q)
    expected = torch.stack([
        plain_formula(q_, k_, v_, everything if index == 0 else nothing, heads, region)
        for index, q_, k_, v_, region in zip(rows, q, k, v, means)
    ])
    assert rel(out, expected) < tolerance


def test_regions_of_another_number_of_tokens_are_refused():
    group = ReferenceGroup(torch.randn(3, 8), torch.randn(3, 8), region=0)
    options = {
        "n_heads": 1, "attn_precision": None, "cond_or_uncond": [0], "activations_shape": (1, 8, 4, 4),
    }
    patch = ShareReferences(
        join_references([group]).widened(1), 1, batch_of(options, (True,), 1, (4, 4)), (torch.ones(1, 1, 4, 4),)
    )
    with pytest.raises(ValueError, match="gives the self-attention 4 tokens in 4 rows where the layer has 16 in 1"):
        patch(*torch.randn(3, 4, 4, 8), options)
    with pytest.raises(ValueError, match="gives the self-attention 16 tokens in 2 rows where the layer has 16 in 1"):
        patch(*torch.randn(3, 2, 16, 8), options)
    options = {**options, "cond_or_uncond": [0, 1], "activations_shape": (2, 8, 4, 4), "ref_uncond_idxs": [0]}
    patch.batch = batch_of(options, (True, False), 2, (4, 4))
    with pytest.raises(ValueError, match="so it cannot be told which tokens are in the region"):
        patch(*torch.randn(3, 1, 16, 8), options)


CPU, GPU = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("device, dtype, regions, options, expected", [
    (CPU, torch.float32, (), {}, True),
    (GPU, torch.float32, (), {}, False),
    (CPU, torch.bfloat16, (), {}, False),
    (CPU, torch.float16, (), {}, False),
    (CPU, torch.float32, (torch.ones(1, 1, 4, 4),), {}, False),
    (CPU, torch.float32, (), {"optimized_attention_override": print}, False),
])
def test_a_mask_carries_it_on_a_cpu_where_nothing_is_lost(device, dtype, regions, options, expected):
    """A mask of half precision would round it, a GPU's fastest kernels take none, and another node's attention need not."""
    assert takes_mask(device, dtype, regions, options) == expected
