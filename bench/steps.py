"""What a sampling step costs: with references, as the release computes it, with ideas switched off, and as sizes grow."""

from __future__ import annotations

from functools import partial

from harness.workbench import apply_parts, rel
from inside import bias_in_a_mask, in_both_halves, project_again, recorded
from parts2whole.attention.bank import Appearance, Bank
from plain_model import References, sample_plainly, seconds_per_step
from released_attention import apply_as_released
from timing import Time, compare, show


def bench_steps(plain, options) -> dict:
    """One guided step."""
    width, height = options.size
    models = {"plain": plain}
    for count in (1, 3, 6):
        appearance = References(plain, count, width, height).appearance
        models["1 reference" if count == 1 else f"{count} references"] = apply_parts(plain, appearance)
    models["3 references, drop"] = apply_parts(plain, References(plain, 3, width, height).appearance, mask_mode="drop")
    takes = {name: partial(seconds_per_step, model, width, height) for name, model in models.items()}
    rows = compare(takes, options.rounds, "plain")
    show(f"One guided step at {width}x{height}, against the plain model", rows)
    return rows


def bench_released(plain, options) -> dict:
    """The release's algorithm against ours. Apart from the steps: what it allocates would slow down the model that comes after."""
    width, height = options.size
    three = References(plain, 3, width, height)
    ours, released = apply_parts(plain, three.appearance), apply_as_released(plain, three.features)
    difference = rel(sample_plainly(ours, width, height), sample_plainly(released, width, height))
    print(f"\nOurs and the release's algorithm, 3 references: pictures differ by {difference:.1e}.")
    assert difference < (1e-3 if options.dtype == "float32" else 5e-2)
    takes = {
        "3 references": partial(seconds_per_step, ours, width, height),
        "the same, as released": partial(seconds_per_step, released, width, height),
    }
    rows = compare(takes, options.rounds, "3 references")
    show(f"One guided step at {width}x{height}, against ours", rows)
    return rows


def bench_ideas(plain, options) -> dict:
    """Three references with each idea switched off alone; the logits' bias in wider heads and in a mask, one of which is usual."""
    width, height = options.size
    references = References(plain, 3, width, height)
    ours = apply_parts(plain, references.appearance)
    zeros = tuple(
        reference._replace(banks={address: Bank(tokens, 0) for address, tokens in features.items()})
        for reference, features in zip(references.appearance.references, references.features)
    )

    def carried_by(mask: bool) -> Time:
        with bias_in_a_mask(mask):
            return step(ours)

    step = partial(seconds_per_step, width=width, height=height)
    takes = {
        "plain": partial(step, plain),
        "all ideas": partial(step, ours),
        "wider heads": partial(carried_by, False),
        "a mask": partial(carried_by, True),
        "projected in every step": partial(step, ours, change=project_again),
        "in both halves": partial(step, ours, change=in_both_halves),
        "masked tokens as zeros": partial(step, apply_parts(plain, Appearance(zeros))),
    }
    rows = compare(takes, options.rounds, "plain")
    show(f"Three references at {width}x{height}, each idea switched off alone, against the plain model", rows)
    return rows


def bench_attribution(plain, options) -> dict:
    """What recording the attribution adds to a step."""
    width, height = options.size
    ours = apply_parts(plain, References(plain, 3, width, height).appearance)
    takes = {"3 references": partial(seconds_per_step, ours, width, height)}
    # The recorder is new each time, as in a graph that is queued again.
    takes["3 references, recorded"] = lambda: seconds_per_step(recorded(ours), width, height)
    rows = compare(takes, options.rounds, "3 references")
    show(f"Recording the attribution at {width}x{height}, against the same without", rows)
    return rows


def bench_growth(plain, options) -> dict:
    """More references, larger pictures, larger batches."""
    width, height = options.size
    cases = {f"references: {count}": (count, width, height, 1) for count in options.references}
    cases |= {f"3 references, {size}x{size}": (3, size, size, 1) for size in options.sizes}
    cases |= {f"3 references, batch {batch}": (3, width, height, batch) for batch in options.batches}
    rows = {}
    for name, (count, width, height, batch) in cases.items():
        model = apply_parts(plain, References(plain, count, width, height).appearance) if count else plain
        takes = {
            "plain": partial(seconds_per_step, plain, width, height, batch),
            name: partial(seconds_per_step, model, width, height, batch),
        }
        rows[name] = compare(takes, max(1, options.rounds // 5), "plain")[name]
    show("How the cost grows, each against the plain model of the same size and batch", rows)
    return rows
