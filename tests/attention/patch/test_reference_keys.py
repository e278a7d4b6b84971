"""What carries the bias of the references' keys."""

import pytest
import torch
from parts2whole.attention.patch.reference_keys import takes_mask

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
