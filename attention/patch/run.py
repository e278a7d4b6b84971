"""One sampling run: what is kept for its length, and which conditioning is the positive one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch.utils.weak import WeakIdKeyDictionary

from ...pictures.crop import WHOLE, Box
from .batch import Batch, Sampled
from .carried import Carried
from .host.sampling import areas_of, has_windows, positive_conds, prompt_id
from .host.unet import pixels_per_latent, trained_size
from .host.warnings import warn
from .region_map import region_of

# Names in transformer_options, and on conditionings: what is applied, the run, what is sampled, the attribution.
APPLIED, RUN, SAMPLED, ATTRIBUTION = "parts2whole", "parts2whole_run", "parts2whole_sampled", "parts2whole_attribution"

# The prompt, and the latent (h, w) that something was laid over first in it: another node may sample crops of it afterwards.
_first_grids: MutableMapping[Any, tuple[str | None, tuple[int, int]]] = WeakIdKeyDictionary()


class Run(Carried):
    """What lasts for one sampling run: keys and values of the references, pose features, and what was said.

    marked: whether the conditionings say which of them is the positive one
    reached: whether the U-Net was called
    took_references: the uuids of the conditionings of which an edit model was given the references
    """

    def __init__(self):
        self._slots, self._said = {}, set()
        self.marked = self.reached = False
        self.took_references = set()

    def keep(self, slot: tuple, state: tuple, compute: Callable, *args) -> Any:
        """What compute(*args) gave for this state; a slot holds one state's result, the latest."""
        if slot not in self._slots or self._slots[slot][0] != state:
            self._slots[slot] = state, compute(*args)
        return self._slots[slot][1]

    def acts_at(self, sigma: float, percents: tuple[float, float], sampling) -> bool:
        """Whether a sigma lies in a part of the noise schedule, 0..1. sampling: the host's, of the model"""
        first, last = (self.keep(("sigma", percent), (), sampling.percent_to_sigma, percent) for percent in percents)
        return first >= sigma >= last

    def region(
        self, region: torch.Tensor, device: torch.device, latent: int, size: tuple[int, int], crop: Box = WHOLE,
        by_centre: bool = False,
    ) -> torch.Tensor:
        """Of regions [B, H, W] in 0..1 that of a latent (h, w), [1, 1, h, w]; fewer regions than latents are used in turn.

        crop: what of the regions the latent shows; by_centre: see `region_map.at_size`
        """
        number = latent % len(region)

        def resize() -> torch.Tensor:
            values = region_of(region[number], crop, size, by_centre)
            if by_centre and crop == WHOLE and region[number].any() and not values.any():
                self.warn(
                    f"the region lies between the centres of all tokens of a latent of {size[1]}x{size[0]}, so its parts do "
                    "nothing: make it larger, or set `region_mode` of Apply Parts2Whole to area."
                )
            return values.to(device)

        return self.keep(("region", region, by_centre, number, size, device, crop), (), resize)

    def warn(self, message: str):
        """Says it on the sampler's node and in the log, once in a run."""
        if message not in self._said:
            self._said.add(message)
            warn(message)

    def lay_over(
        self, batch: Batch, maps: Iterable[tuple[Any, str, torch.Tensor]],
        mend: str = "connect that node to a MODEL without this {what}, or draw the crop with the MODEL of Crop for Detail",
    ):
        """Warns where a batch does not tell which latent, or which part of it, a pose or a region belongs to, and where it is a
        piece of what they were laid over first in this prompt.

        maps: what they belong to, what they are, and themselves [B, ...]
        """
        for owner, what, each in maps:
            if batch.tiled:
                self.warn(
                    "the model sees tiles of the latent, and where they lie is not known. Each tile gets the whole pose and the "
                    "whole region: sample without tiling, or without these."
                )
            else:
                self._meet(owner, what, batch.whole_size(), mend.format(what=what))
            if not batch.latents_known and len(each) > 1:
                self.warn(
                    "another node takes the latents of a batch in portions, and which of them it takes is not known. Each portion "
                    "gets the first poses and regions: sample without that node, or with one pose and one region."
                )

    def _meet(self, owner: Any, what: str, grid: tuple[int, int], mend: str):
        prompt = prompt_id()
        first_prompt, first = _first_grids.get(owner, (prompt, grid))
        if first_prompt != prompt:
            first = grid
        _first_grids[owner] = prompt, first
        same_shape = abs(first[0] * grid[1] - first[1] * grid[0]) < max(*first, *grid)
        if not same_shape or grid[0] < first[0]:
            self.warn(
                f"the {what} was laid over a latent of {first[1]}x{first[0]} before and is now laid over {grid[1]}x{grid[0]}. If a "
                "node samples crops of the picture, as tiled upscalers and face detailers do, every crop gets the whole of it: "
                f"{mend}."
            )


def run_of(options: dict[str, Any]) -> Run:
    """The run that these transformer_options belong to. One of its own where another node has lost it."""
    return options.get(RUN) or Run()


def warn_of_size(model: ModelPatcher, width: int, height: int, mend: str):
    """Warns of another size than the only one that a small model was trained with.

    width, height: in pixels
    """
    trained = trained_size(model)
    if trained is not None and (width, height) != trained:
        warn(
            f"this model was made for pictures of {trained[0]}x{trained[1]}, and these are {width}x{height}: people come out "
            f"wrong, or several at once. {mend}"
        )


def begin_run(executor, noise, *args, **kwargs):
    guider = executor.class_obj
    options = guider.model_options["transformer_options"]
    run = options[RUN] = Run()
    applied = options.get(APPLIED)
    of_one_person = applied is not None and applied.crop == WHOLE and not applied.divided and not has_windows(guider.model_options)
    if of_one_person:
        height, width = (side * pixels_per_latent(guider.model_patcher) for side in noise.shape[-2:])
        warn_of_size(guider.model_patcher, width, height, "Set it where the empty latent is made.")
    attribution = options.get(ATTRIBUTION)
    if attribution is not None:
        attribution.begin()
    try:
        latents = executor(noise, *args, **kwargs)
    except BaseException:  # an interrupt too: half of a run is nobody's attribution
        if attribution is not None:
            attribution.begin()
        raise
    if attribution is not None:
        attribution.finish(latents)
    if APPLIED in options and not run.reached:
        run.warn(
            "the run ended without a call of the U-Net that reached parts, pose and image tokens, so they did nothing. A node that "
            "caches or replaces the model's calls is the likely cause: remove it."
        )
    return latents


def mark_conditionings(executor, guider, *args, **kwargs):
    """Marks the positive conditioning: guiders and nodes put it anywhere in a batch."""
    run = run_of(guider.model_options["transformer_options"])
    for cond in positive_conds(guider):
        cond[APPLIED] = run.marked = True
    return executor(guider, *args, **kwargs)


def describe_sampled(executor, model, conds, x_in: torch.Tensor, timestep, model_options):
    """Notes what the host is asked for, before it makes batches of it."""
    run = run_of(model_options["transformer_options"])
    positive = [any(APPLIED in c for c in cond or ()) for cond in conds]
    # None is marked where a node makes its own conditionings. A single one is an extra pass (PerpNeg's empty prompt) and not
    # positive; of several the first is positive, as everywhere in the host.
    alone = sum(cond is not None for cond in conds) == 1
    if not any(positive) and not (run.marked and alone):
        positive = [number == 0 for number in range(len(conds))]
    sampled = Sampled(len(x_in), tuple(x_in.shape[-2:]), tuple(positive), areas_of(conds))
    options = {**model_options["transformer_options"], SAMPLED: sampled}
    return executor(model, conds, x_in, timestep, {**model_options, "transformer_options": options})
