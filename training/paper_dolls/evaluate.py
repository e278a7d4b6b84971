"""Measures what a paper-doll checkpoint can do, through the ComfyUI nodes, on figures that it was not trained on.

    make evaluate

prints a table and writes it as JSON and as a plot. With folders of pictures it computes the paper's metrics instead: see
`training.image_metrics`.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from harness.host import start_host

from ..image_metrics import add_arguments, measure_folders
from .drawer import GUIDANCE, STEPS, Drawer, swap_locality
from .figure import LABELS
from .measure import Measured
from .pairs import Pair
from .rows import CONDITIONS, HELD_OUT_SEED, Condition, figures, labels_of, measure_mean_colour, measure_parts

TITLES = {
    "colour": "part colour error (CIEDE2000)", "pattern": "pattern accuracy", "pose": "pose overlap (IoU)",
    "features": "eyes and mouths",
}


def evaluate(drawer: Drawer, count: int, swaps: int) -> dict:
    pairs, all_six = figures(count, False), figures(count, True)
    rows = {}

    def report(name: str, measured: Measured):
        rows[name] = measured._asdict()
        texts = ("" if value is None else f"{value:.{digits}f}" for value, digits in zip(measured[:4], (1, 2, 2, 2)))
        print(f"{name:36}" + "".join(f"{text:>10}" for text in texts) + f"{measured.figures:6}", flush=True)

    print(f"{'':36}" + "".join(f"{name:>10}" for name in Measured._fields[:4]) + f"{'n':>6}")
    for condition in CONDITIONS:
        chosen = all_six if condition.six else pairs

        def draw(pair: Pair, condition: Condition = condition) -> np.ndarray:
            references = [pair.reference(label) for label in labels_of(pair, condition.references)]
            return drawer.draw(pair, references, condition, seed=pair.index)

        report(condition.name, measure_parts(chosen, condition.measured, draw))
    report("mean colour", measure_mean_colour(pairs, 3))
    for name, draw in (
        ("the true picture", lambda pair: pair.drawing.image),
        ("the true picture through the VAE", lambda pair: drawer.through_vae(pair.drawing.image)),
    ):
        report(name, measure_parts(pairs, len(LABELS), draw))
    locality = swap_locality(drawer, pairs[:swaps])
    print(f"Swapping one reference changes its own region {locality:.1f} times as much as the rest of the figure.")
    three = rows["3 references"]
    goals = {
        "colour error, of prompt only (goal: at most 0.25)": three["colour"] / rows["prompt only"]["colour"],
        "colour error, of mean colour": three["colour"] / rows["mean colour"]["colour"],
        "pattern accuracy (goal: at least 0.75)": three["pattern"],
        "pose overlap (goal: at least 0.93)": three["pose"],
        "face features, all references (goal: at least 0.7)": rows["all references"]["features"],
        "swap locality (goal: at least 8)": locality,
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
    figure, axes = plt.subplots(1, 4, figsize=(15, 0.32 * len(names) + 1.2), sharey=True, layout="constrained")
    for axis, (key, title) in zip(axes, TITLES.items()):
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
