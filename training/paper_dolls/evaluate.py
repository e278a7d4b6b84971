"""Measures what a paper-doll checkpoint can do, through the ComfyUI nodes, on figures that it was not trained on.

    make evaluate

prints a table and writes it as JSON and as a plot. With folders of pictures it computes the paper's metrics instead: see
`training.image_metrics`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from harness.host import call_node, start_host
from skimage.color import deltaE_ciede2000, rgb2lab

from ..dataset import ReferencePicture
from ..image_metrics import add_arguments, measure_folders
from .figure import FACE, HAIR, LABELS, LOWER, PATTERNS, SHOES, UPPER, WHOLE, random_doll, random_wear
from .measure import (
    PATTERNED,
    SMALLEST_PATTERN,
    SMALLEST_REGION,
    change,
    colour_error,
    find_figure,
    find_pattern,
    overlap,
    palette,
    seen,
)
from .pairs import HEIGHT, WIDTH, Pair

# Never trained on: training takes its figures from other seeds.
HELD_OUT_SEED = 1_000_003
STEPS, GUIDANCE = 20, 2.0
# Keeps this random stream apart from those of the figures.
SWAP = 2000
# In this order references are added, as far as the figure wears them.
ORDER = (UPPER, WHOLE, LOWER, HAIR, FACE, SHOES)
NO_LABEL = "part"


class Measured(NamedTuple):
    """Means over the parts that references were given for, or over the first three.

    colour: CIEDE2000 from the nearest of the part's colours, so that it says little of a pattern; pattern: share of clothes
    with the right one; pose: overlap of figures
    """

    colour: float
    pattern: float
    pose: float | None
    figures: int


class Condition(NamedTuple):
    """A row of the table: how many references, and what is left out or done otherwise."""

    name: str
    references: int
    parts: bool = True
    images: bool = True
    mask_mode: str = "zero"
    masks: bool = True
    labels: bool = True

    @property
    def measured(self) -> int:
        """How many parts are looked at, in ORDER."""
        return self.references or 3


CONDITIONS = (
    Condition("1 reference", 1),
    Condition("2 references", 2),
    Condition("3 references", 3),
    Condition("4 references", 4),
    Condition("6 references, other figures", 6),
    Condition("prompt only", 0, parts=False, images=False),
    Condition("3, whole pictures for masks", 3, masks=False),
    Condition("3, without labels", 3, labels=False),
    Condition("3, image tokens only", 3, parts=False),
    Condition("3, without image tokens", 3, images=False),
    Condition("3, mask mode drop", 3, mask_mode="drop"),
)


def figures(count: int, wears_all: bool) -> list[Pair]:
    """Held-out pairs. wears_all: those with all six parts, under an open coat"""
    pairs = (Pair(HELD_OUT_SEED, i) for i in range(100 * count))
    return [pair for pair, _ in zip((p for p in pairs if (len(p.doll.wears) == len(LABELS)) or not wears_all), range(count))]


def labels_of(pair: Pair, count: int) -> list[str]:
    return [label for label in ORDER if label in pair.doll.wears][:count]


class Drawer:
    """Draws pictures with a checkpoint's nodes."""

    def __init__(self, checkpoint: str):
        names = ("model", "clip", "vae", "clip_vision", "appearance_encoder", "pose_guider", "image_attention")
        self.loaded = dict(zip(names, call_node("Parts2WholeLoader", checkpoint=checkpoint)))

    def draw(self, pair: Pair, references: list[ReferencePicture], condition: Condition, seed: int) -> np.ndarray:
        """[H, W, 3] uint8"""
        call, loaded = call_node, self.loaded
        (model,) = call("Parts2WholeApplyPose", model=loaded["model"], pose_guider=loaded["pose_guider"], image=_image(pair.pose),
                        strength=1.0, start_percent=0.0, end_percent=1.0)
        if references and (condition.parts or condition.images):
            parts = {
                f"part{i}": call(
                    "Parts2WholeMakePart", image=_image(reference.image), label=reference.label if condition.labels else NO_LABEL,
                    mask=_image(reference.mask) if condition.masks else torch.ones(1, HEIGHT, WIDTH),
                )[0]
                for i, reference in enumerate(references)
            }
            (labelled,) = call("Parts2WholeEncodeLabels", clip=loaded["clip"], parts=parts)
            if condition.images:
                (model,) = call("Parts2WholeApplyImageAttention", model=model, image_attention=loaded["image_attention"],
                                clip_vision=loaded["clip_vision"], parts=labelled, strength=1.0)
            if condition.parts:
                (appearance,) = call("Parts2WholeEncodeAppearance", appearance_encoder=loaded["appearance_encoder"],
                                     vae=loaded["vae"], parts=labelled, width=WIDTH, height=HEIGHT)
                (model,) = call("Parts2WholeApply", model=model, appearance=appearance, mask_mode=condition.mask_mode, strength=1.0,
                                start_percent=0.0, end_percent=1.0)
        (positive,), (negative,) = (call("CLIPTextEncode", clip=loaded["clip"], text=text) for text in (pair.doll.caption, ""))
        (sigmas,) = call("Parts2WholeSigmas", model=model, steps=STEPS, denoise=1.0)
        (sampler,) = call("KSamplerSelect", sampler_name="ddim")
        latent, _ = call("SamplerCustom", model=model, add_noise=True, noise_seed=seed, cfg=GUIDANCE, positive=positive,
                         negative=negative, sampler=sampler, sigmas=sigmas, latent_image=self._empty())
        (picture,) = call("VAEDecode", vae=loaded["vae"], samples=latent)
        return _pixels(picture)

    def through_vae(self, image: np.ndarray) -> np.ndarray:
        (latent,) = call_node("VAEEncode", vae=self.loaded["vae"], pixels=_image(image))
        return _pixels(call_node("VAEDecode", vae=self.loaded["vae"], samples=latent)[0])

    def _empty(self):
        return call_node("EmptyLatentImage", width=WIDTH, height=HEIGHT, batch_size=1)[0]


def measure(pairs: list[Pair], count: int, draw: Callable[[Pair], np.ndarray]) -> Measured:
    colours, patterns, poses = [], [], []
    for pair in pairs:
        image, true = draw(pair), pair.drawing
        poses.append(overlap(find_figure(image, pair.doll.background), true.figure > 0.5))
        for label in labels_of(pair, count):
            region, wear = seen(true.regions[label]), pair.doll.wears[label]
            if region.sum() >= SMALLEST_REGION:
                colours.append(colour_error(image, region, palette(label, wear)))
            if label in PATTERNED and region.sum() >= SMALLEST_PATTERN:
                patterns.append(find_pattern(image, region, pair.doll, pair.view) == wear.pattern)
    return Measured(float(np.mean(colours)), float(np.mean(patterns)), float(np.mean(poses)), len(pairs))


def mean_colours() -> dict[str, np.ndarray]:
    """The mean first colour of each part over many figures: a guess without having seen it."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    dolls = [random_doll(rng) for _ in range(2000)]
    return {label: np.mean([doll.wears[label].colours[0] for doll in dolls if label in doll.wears], 0) for label in LABELS}


def measure_mean_colour(pairs: list[Pair], count: int) -> Measured:
    guesses = mean_colours()
    errors, patterns = [], []
    for pair in pairs:
        regions = pair.drawing.regions
        for label in labels_of(pair, count):
            size = seen(regions[label]).sum()
            if size >= SMALLEST_REGION:
                guess = rgb2lab(guesses[label][None, None])[0]
                errors.append(float(np.min(deltaE_ciede2000(guess, palette(label, pair.doll.wears[label])))))
            if label in PATTERNED and size >= SMALLEST_PATTERN:
                patterns.append(pair.doll.wears[label].pattern == PATTERNS[0])
    return Measured(float(np.mean(errors)), float(np.mean(patterns)), None, len(pairs))


def swap_locality(drawer: Drawer, pairs: list[Pair]) -> float:
    """How much more a part's own region changes than the rest of the figure, when its reference is swapped.

    The other part has the same shape, so that the regions are the same. A ratio of mean CIEDE2000, over all figures.
    """
    own, rest = [], []
    condition = CONDITIONS[2]
    for i, pair in enumerate(pairs):
        labels = labels_of(pair, 3)
        swapped = labels[i % len(labels)]
        rng = np.random.default_rng([SWAP, HELD_OUT_SEED, i])
        other = pair.with_wear(swapped, random_wear(rng, swapped, pair.doll.background, pair.doll.wears[swapped].shape))
        before, after = (
            drawer.draw(pair, [p.reference(label) if label == swapped else pair.reference(label) for label in labels], condition, i)
            for p in (pair, other)
        )
        true = pair.drawing
        region = true.regions[swapped]
        # Arms and legs have the face's colour: what is to change with the part is not the rest.
        same = (true.image == other.drawing.image).all(-1)
        own.append(change(before, after, seen(region)))
        rest.append(change(before, after, seen(true.figure - region) & same))
    return float(np.mean(own) / np.mean(rest))


def evaluate(drawer: Drawer, count: int, swaps: int) -> dict:
    pairs, all_six = figures(count, False), figures(count, True)
    rows = {}

    def report(name: str, measured: Measured):
        rows[name] = measured._asdict()
        pose = "" if measured.pose is None else f"{measured.pose:.2f}"
        print(f"{name:36}{measured.colour:8.1f}{measured.pattern:10.2f}{pose:>8}{measured.figures:6}", flush=True)

    print(f"{'':36}{'colour':>8}{'pattern':>10}{'pose':>8}{'n':>6}")
    for condition in CONDITIONS:
        chosen = all_six if condition.references == len(LABELS) else pairs

        def draw(pair: Pair, condition: Condition = condition) -> np.ndarray:
            references = [pair.reference(label) for label in labels_of(pair, condition.references)]
            return drawer.draw(pair, references, condition, seed=pair.index)

        report(condition.name, measure(chosen, condition.measured, draw))
    report("mean colour", measure_mean_colour(pairs, 3))
    report("the true picture", measure(pairs, 3, lambda pair: pair.drawing.image))
    report("the true picture through the VAE", measure(pairs, 3, lambda pair: drawer.through_vae(pair.drawing.image)))
    locality = swap_locality(drawer, pairs[:swaps])
    print(f"Swapping one reference changes its own region {locality:.1f} times as much as the rest of the figure.")
    three = rows["3 references"]
    goals = {
        "colour error, of prompt only (goal: at most 0.33)": three["colour"] / rows["prompt only"]["colour"],
        "colour error, of mean colour": three["colour"] / rows["mean colour"]["colour"],
        "pattern accuracy (goal: above 0.8)": three["pattern"],
        "pose overlap (goal: above 0.9)": three["pose"],
        "swap locality (goal: at least 5)": locality,
    }
    for name, value in goals.items():
        print(f"{name}: {value:.2f}")
    return {"rows": rows, "goals": goals, "steps": STEPS, "guidance": GUIDANCE, "seed": HELD_OUT_SEED}


def plot(result: dict, path: Path):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = result["rows"]
    names = list(rows)
    figure, axes = plt.subplots(1, 3, figsize=(12, 0.32 * len(names) + 1.2), sharey=True, layout="constrained")
    titles = {"colour": "part colour error (CIEDE2000)", "pattern": "pattern accuracy", "pose": "pose overlap (IoU)"}
    for axis, (key, title) in zip(axes, titles.items()):
        ours = ["references" in name or name == "1 reference" for name in names]
        values = [rows[name][key] for name in names]
        bars = axis.barh(names, [value or 0 for value in values], color=["#2f6db3" if own else "#b9c3cf" for own in ours])
        digits = 1 if key == "colour" else 2
        axis.bar_label(bars, ["" if value is None else f"{value:.{digits}f}" for value in values], padding=2, fontsize=8)
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.12)
    axes[0].invert_yaxis()
    figure.savefig(path, dpi=110)


def _image(image) -> torch.Tensor:
    """A picture or a mask as the host has it: [1, H, W, 3] or [1, H, W] in 0..1"""
    return torch.from_numpy(np.array(image).astype(np.float32) / 255)[None]


def _pixels(picture: torch.Tensor) -> np.ndarray:
    return (picture[0].clamp(0, 1) * 255).round().byte().cpu().numpy()


def main():
    parser = argparse.ArgumentParser(description="Measures a paper-doll checkpoint through the ComfyUI nodes.")
    parser.add_argument("--checkpoint", default="paper_doll", help="a folder under models/parts2whole, or the pack's own")
    parser.add_argument("--models", type=Path, help="another folder to look for checkpoints in")
    parser.add_argument("--figures", type=int, default=40)
    parser.add_argument("--swaps", type=int, default=24)
    parser.add_argument("--output", type=Path, default=Path("output/evaluation"))
    add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.generated:
        for name, value in measure_folders(arguments).items():
            print(f"{name:20}{value:10.4f}")
        return
    start_host(cpu=not torch.cuda.is_available(), pytorch_attention=True, models=arguments.models)
    began = time.monotonic()
    with torch.inference_mode():
        result = evaluate(Drawer(arguments.checkpoint), arguments.figures, arguments.swaps)
    arguments.output.mkdir(parents=True, exist_ok=True)
    (arguments.output / "evaluation.json").write_text(json.dumps(result, indent=2) + "\n")
    plot(result, arguments.output / "evaluation.png")
    print(f"{time.monotonic() - began:.0f} s; table and plot: {arguments.output}")


if __name__ == "__main__":
    main()
