"""Measures what a paper-doll checkpoint can do, through the ComfyUI nodes, on figures that it was not trained on.

    make evaluate

prints a table and writes it as JSON and as a plot. With folders of pictures it computes the paper's metrics instead: see
`training.image_metrics`.
"""

from __future__ import annotations

import numpy as np

from ..dolls.drawer import GUIDANCE, STEPS, Drawer, swap_locality
from ..dolls.evaluate import main
from ..dolls.rows import HELD_OUT_SEED, Condition, labels_of
from .figure import random_wear
from .pairs import Pair
from .rows import CONDITIONS, Measured, figures, measure, measure_mean_colour


def evaluate(drawer: Drawer, count: int, swaps: int) -> dict:
    pairs, all_six = figures(count, False), figures(count, True)
    rows = {}

    def report(name: str, measured: Measured):
        rows[name] = measured._asdict()
        pose = "" if measured.pose is None else f"{measured.pose:.2f}"
        print(f"{name:36}{measured.colour:8.1f}{measured.pattern:10.2f}{pose:>8}{measured.figures:6}", flush=True)

    print(f"{'':36}{'colour':>8}{'pattern':>10}{'pose':>8}{'n':>6}")
    for condition in CONDITIONS:
        chosen = all_six if condition.six else pairs

        def draw(pair: Pair, condition: Condition = condition) -> np.ndarray:
            references = [pair.reference(label) for label in labels_of(pair, condition.references)]
            return drawer.draw(pair, references, condition, seed=pair.index)

        report(condition.name, measure(chosen, condition.measured, draw))
    report("mean colour", measure_mean_colour(pairs, 3))
    report("the true picture", measure(pairs, 3, lambda pair: pair.drawing.image))
    report("the true picture through the VAE", measure(pairs, 3, lambda pair: drawer.through_vae(pair.drawing.image)))
    locality = swap_locality(drawer, pairs[:swaps], random_wear)
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


if __name__ == "__main__":
    main(evaluate)
