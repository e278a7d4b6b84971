"""The release's sampling schedule: DDIM with `leading` spacing and steps_offset 1, set_alpha_to_one false."""

from __future__ import annotations

import comfy.model_sampling
import torch


def ddim_sigmas(model_sampling, steps: int, denoise: float) -> torch.Tensor:
    """Sigmas of the timesteps 1 + i * (1000 // n), largest first, and then that of timestep 0 instead of 0.

    steps: number of steps to take
    denoise: fraction of the schedule to take, 0..1: the last `steps` of int(steps / denoise)
    returns: [steps + 1], float32; empty for denoise 0
    raises: ValueError for a model whose noise schedule is not discrete, and for more steps than it has
    """
    if not isinstance(model_sampling, comfy.model_sampling.ModelSamplingDiscrete):
        raise ValueError(
            "Parts2Whole Sigmas needs a model with a discrete noise schedule, as that from Load Parts2Whole; this "
            f"one's is {type(model_sampling).__mro__[1].__name__}. Use Basic Scheduler for it."
        )
    if denoise <= 0:
        return torch.FloatTensor([])
    total, available = int(steps / denoise), len(model_sampling.sigmas)
    if total >= available:
        raise ValueError(
            f"{steps} steps at denoise {denoise} make a schedule of {total} steps, but the model has {available} timesteps. Take "
            "fewer steps or a higher denoise."
        )
    timesteps = [1 + i * (available // total) for i in range(steps)]
    return model_sampling.sigmas[[*reversed(timesteps), 0]].cpu()
