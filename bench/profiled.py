"""Where the time of a step goes."""

from __future__ import annotations

import statistics
from contextlib import nullcontext

import torch
from harness.workbench import apply_parts
from plain_model import References, sample_plainly
from timing import GPU, synchronise
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity

KINDS = {
    "attention": ("scaled_dot_product", "_flash_attention", "_efficient_attention", "_cudnn_attention", "softmax"),
    "convolutions": ("convolution",),
    "matrix products": ("aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::linear"),
}


def bench_profile(plain, options) -> dict:
    """Where the time of a step goes, by the profiler: seconds by kind of operation, medians. Beside it nothing is timed."""
    width, height = options.size
    models = {"plain": plain}
    for count in (3, 6):
        models[f"{count} references"] = apply_parts(plain, References(plain, count, width, height).appearance)
    times = {name: {kind: [] for kind in (*KINDS, "all else")} for name in models}
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if GPU else [])]
    for _ in range(options.rounds):
        for name, model in models.items():
            seconds = dict.fromkeys((*KINDS, "all else"), 0.0)
            for event in _profile_step(model, width, height, activities):
                if event.device_type != DeviceType.CPU:
                    continue  # a kernel, whose time its operation has already
                kind = next((kind for kind, names in KINDS.items() if any(part in event.key for part in names)), "all else")
                seconds[kind] += (event.self_device_time_total if GPU else event.self_cpu_time_total) / 1e6
            for kind, taken in seconds.items():
                times[name][kind].append(taken)
    medians = {name: {kind: statistics.median(taken) for kind, taken in kinds.items()} for name, kinds in times.items()}
    print(f"\nWhere a step's seconds go at {width}x{height}\n{'':20}" + "".join(f"{kind:>18}" for kind in (*KINDS, "all else")))
    for name, kinds in medians.items():
        print(f"  {name:18}" + "".join(f"{taken:18.3f}" for taken in kinds.values()), flush=True)
    return medians


def _profile_step(model, width: int, height: int, activities: list) -> list:
    """The events of the second step."""
    steps = []

    def profiled(apply_model, args):
        steps.append(torch.profiler.profile(activities=activities) if len(steps) == 1 else nullcontext())
        synchronise()
        with steps[-1]:
            result = apply_model(args["input"], args["timestep"], **args["c"])
            synchronise()
        return result

    model = model.clone()
    model.set_model_unet_function_wrapper(profiled)
    sample_plainly(model, width, height)
    return steps[1].key_averages()
