"""Core's context windows, on any dimension of a latent."""

from __future__ import annotations

from comfy.context_windows import (
    ContextFuseMethods,
    ContextSchedules,
    IndexListContextHandler,
    get_matching_context_schedule,
    get_matching_fuse_method,
)


class CountingWindows(IndexListContextHandler):
    """Windows beside each other. They only run where the latent is longer than a window, so it counts how often they did."""

    def __init__(self, length: int, dim: int):
        super().__init__(
            context_schedule=get_matching_context_schedule(ContextSchedules.STATIC_STANDARD),
            fuse_method=get_matching_fuse_method(ContextFuseMethods.FLAT), context_length=length, context_overlap=0,
            context_stride=1, closed_loop=False, dim=dim, freenoise=False,
        )
        self.causal_window_fix = False  # for video models; older hosts have none
        self.calls = 0

    def execute(self, *args, **kwargs):
        self.calls += 1
        return super().execute(*args, **kwargs)
