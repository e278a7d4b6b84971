"""How the benches measure: in turns, as ratios within a round, by two clocks; and what they show of it."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

GPU = torch.cuda.is_available()
# A GPU's work is no CPU time.
HEADLINE, BESIDE = ("wall", "cpu") if GPU else ("cpu", "wall")


class Time(NamedTuple):
    """Seconds by the wall's clock, and of the CPU in all threads of this process."""

    wall: float
    cpu: float

    def __sub__(self, other: Time) -> Time:
        return Time(self.wall - other.wall, self.cpu - other.cpu)

    def __truediv__(self, count: int) -> Time:
        return Time(self.wall / count, self.cpu / count)


def clock() -> Time:
    return Time(time.perf_counter(), time.process_time())


def synchronise():
    if GPU:
        torch.cuda.synchronize()


def seconds_of(call: Callable) -> Time:
    synchronise()
    begin = clock()
    call()
    synchronise()
    return clock() - begin


def compare(takes: dict[str, Callable[[], Time]], rounds: int, against: str) -> dict[str, dict]:
    """takes: by name, what returns the time that it took"""
    times = {name: [] for name in takes}
    for _ in range(rounds):
        for name, take in takes.items():
            times[name].append(take())
    return summarise(times, against)


def summarise(times: dict[str, list[Time]], against: str) -> dict[str, dict]:
    """By name and clock: the median of the seconds, and of the ratios, each taken within its round, their median and range."""
    rows = {}
    for name, taken in times.items():
        rows[name] = {}
        for which in Time._fields:
            values, others = ([getattr(t, which) for t in each] for each in (taken, times[against]))
            ratios = [a / b for a, b in zip(values, others)]
            rows[name][which] = {
                "seconds": statistics.median(values), "ratio": statistics.median(ratios), "least": min(ratios),
                "most": max(ratios), "every": values,
            }
    return rows


def show(title: str, rows: dict[str, dict]):
    print(f"\n{title}\n{HEADLINE + ' time':>37}: ratio{'least':>8}{'most':>8}{'seconds':>10}{BESIDE + ': ratio':>14}")
    for name, row in rows.items():
        head = row[HEADLINE]
        figures = f"{head['ratio']:8.3f}{head['least']:8.3f}{head['most']:8.3f}{head['seconds']:10.3f}{row[BESIDE]['ratio']:14.3f}"
        print(f"  {name:32}  {figures}", flush=True)


def peak_bytes(call: Callable) -> int:
    """Bytes that tensors hold at once, at the most: by the allocator on a GPU, else those of the tensors that are made inside."""
    if GPU:
        torch.cuda.reset_peak_memory_stats()
        call()
        return torch.cuda.max_memory_allocated()
    with _PeakMemory() as memory:
        call()
    return memory.peak


class _PeakMemory(TorchDispatchMode):
    """Counts the tensors that operations return; not what kernels need beside them."""

    def __enter__(self):
        self.alive = self.peak = 0
        self.storages = WeakIdKeyDictionary()
        return super().__enter__()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        out = function(*arguments, **(keywords or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor) and (storage := tensor.untyped_storage()) not in self.storages:
                self.storages[storage] = True
                self.alive += storage.nbytes()
                weakref.finalize(storage, self._free, storage.nbytes())
                self.peak = max(self.peak, self.alive)
        return out

    def _free(self, size: int):
        self.alive -= size


def plot(tables: dict[str, dict[str, dict]], path: Path):
    """Draws the ratios of these comparisons, each as a chart of bars."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    heights = [len(rows) for rows in tables.values()]
    figure, axes = plt.subplots(
        len(tables), figsize=(8, 0.35 * sum(heights) + len(tables)), height_ratios=heights, squeeze=False, layout="constrained"
    )
    for axis, (title, rows) in zip(axes[:, 0], tables.items()):
        heads = [row[HEADLINE] for row in rows.values()]
        ratios = [head["ratio"] for head in heads]
        spread = [[head["ratio"] - head["least"] for head in heads], [head["most"] - head["ratio"] for head in heads]]
        bars = axis.barh(list(rows), ratios, xerr=spread, color="#2f6db3", ecolor="#888888")
        axis.bar_label(bars, [f"{ratio:.2f}" for ratio in ratios], padding=6, fontsize=8)
        base = "the plain model of the same size and batch" if title == "growth" else f"'{next(iter(rows))}'"
        axis.set_title(f"{title}: {HEADLINE} time against {base}", fontsize=10)
        axis.axvline(1, color="black", linewidth=0.8)
        axis.invert_yaxis()
        axis.margins(x=0.1)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
