"""The network of the pose guider, beside the golden numbers of the release's: other depths, and where its layers come from."""

import pytest
import torch
import torch.nn as nn
from parts2whole.encoders.pose_network import PoseNetwork


@pytest.mark.parametrize("widths, scale", [([4], 1), ([4, 8], 2), ([4, 8, 8, 16], 8), ([4, 4, 4, 8, 8], 16)])
def test_its_scale_is_what_it_shrinks_by(widths, scale):
    network = PoseNetwork(3, widths, 6)
    assert network.scale == scale
    assert network(torch.rand(2, 3, 3 * scale, 2 * scale)).shape == (2, 6, 3, 2)


def test_all_layers_are_the_operations_own():
    """Those of the host cast their weights to where the picture is."""
    class Operations:
        class Conv2d(nn.Conv2d):
            pass

    network = PoseNetwork(3, [4, 8, 8], 6, Operations)
    assert [type(layer) for layer in network.modules() if isinstance(layer, nn.Conv2d)] == [Operations.Conv2d] * 6
