"""The host loads and unloads networks that are not built of its own layers."""

import gc
import weakref

import comfy.model_management
import pytest
import torch
from parts2whole.pictures.on_device import device_of, load_whole

CPU = torch.device("cpu")


class Halves(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.5]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


def loaded() -> list[torch.nn.Module]:
    comfy.model_management.cleanup_models_gc()
    return [each for model in comfy.model_management.loaded_models() for each in model.model.children()]


@pytest.mark.parametrize("network", [Halves, lambda: torch.jit.script(Halves())], ids=["module", "TorchScript"])
def test_a_network_is_unloaded_on_request_and_with_its_handle(network):
    network = network()
    patcher = load_whole(network, CPU)
    assert any(each is network for each in loaded()) and device_of(patcher) == CPU
    assert patcher.model_size() == 4 and patcher.loaded_size() == 4
    comfy.model_management.unload_all_models()
    assert not any(each is network for each in loaded()) and patcher.loaded_size() == 0
    patcher = load_whole(network, CPU)
    assert any(each is network for each in loaded()) and network(torch.ones(1)).item() == 0.5
    gone = weakref.ref(network)
    del patcher, network
    gc.collect()
    loaded()
    assert gone() is None


def test_a_frozen_network_has_no_weights_that_the_host_could_move():
    with torch.inference_mode(False):
        network = torch.jit.freeze(torch.jit.script(Halves().eval()))
    patcher = load_whole(network, CPU)
    assert not [*patcher.model.parameters()] and device_of(patcher) == CPU and network(torch.ones(1)).item() == 0.5
