"""The pose's features at the first convolution."""

import torch
from parts2whole.attention.patch.batch import Batch, Sampled
from parts2whole.attention.patch.pose import AddPose


def test_it_keeps_the_models_precision():
    """Whatever the features are in: another node may have the U-Net run in its own."""
    options = {"cond_or_uncond": [1, 0], "block": ("input", 0)}
    batch = Batch(Sampled(1, (4, 4), (True, False), {}), options, torch.zeros(2, 4, 4, 4))
    h = torch.zeros(2, 8, 4, 4, dtype=torch.float16)
    added = AddPose(torch.ones(2, 8, 4, 4), batch)(h, options)
    assert added.dtype == torch.float16 and added.eq(1).all()
