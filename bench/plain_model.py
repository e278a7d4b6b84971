"""SD1.5's U-Net at full size with random weights, references for it, and how long its steps take."""

from __future__ import annotations

from collections.abc import Callable

import torch
from full_size import UNET
from harness.workbench import noise, random_unet, sample
from inside import transformer_blocks
from parts2whole.attention.bank import Appearance, Origin, Reference, select_tokens
from timing import GPU, Time, clock, synchronise

STEPS = 20 if GPU else 2  # of a run that is timed
# How much of the picture the masks of six real references cover.
COVERAGE = (0.52, 0.32, 0.21, 0.51, 0.29, 0.37)


class References:
    """References of a frame's size with random features, in both forms: as this pack keeps them and as the release does."""

    def __init__(self, model, count: int, width: int, height: int):
        generator = torch.Generator().manual_seed(count)
        self.features, references = [], []
        for i in range(count):
            features, banks = {}, {}
            for address, block in transformer_blocks(model.model.diffusion_model).items():
                channels = block.attn1.to_k.weight.shape[1]
                depth = 3 if address.name == "middle" else {320: 0, 640: 1, 1280: 2}[channels]
                tokens = -(-height // 8 // 2**depth) * -(-width // 8 // 2**depth)
                mask = (torch.arange(tokens) < tokens * COVERAGE[i % len(COVERAGE)]).float()
                every = torch.randn(tokens, channels, generator=generator)
                features[address] = every * mask[:, None]
                banks[address] = select_tokens(every, mask)
            self.features.append(features)
            references.append(Reference("part", banks, 768, Origin("", "", "", (width, height, "stretch"))))
        self.appearance = Appearance(tuple(references))


def make_plain(dtype: str):
    model = random_unet("SD15", getattr(torch, dtype), **UNET)
    model.model.memory_usage_factor = 0  # by which the host decides whether to split a batch
    return model


def seconds_per_step(
    model, width: int, height: int, batch: int = 1, cfg: float = 3.5, change: Callable = lambda options: None
) -> Time:
    """The mean of the steps of a run but for the first, in which the references' keys and values are projected.

    change: called with the transformer_options before each step
    """
    times = []

    def timed(apply_model, args):
        change(args["c"]["transformer_options"])
        if len(times) == 1:  # and not again before the end: a GPU is kept busy ahead of the steps
            synchronise()
        times.append(clock())
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    sample_plainly(model, width, height, batch, cfg)
    synchronise()
    end = clock()
    assert len(times) == STEPS, "the host has split the batch"
    return (end - times[1]) / (STEPS - 1)


def sample_plainly(model, width: int, height: int, batch: int = 1, cfg: float = 3.5) -> torch.Tensor:
    sigmas = model.get_model_object("model_sampling").sigmas[torch.linspace(801, 601, STEPS + 1).long()]
    positive, negative = ([[torch.ones(1, 77, 768) * x, {}]] for x in (0.1, -0.1))
    return sample(
        model, None, noise(height // 8, width // 8, batch), positive=positive, negative=negative, sigmas=sigmas, cfg=cfg
    )
