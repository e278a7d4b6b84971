"""What references take in memory."""

from __future__ import annotations

from functools import partial

from harness.workbench import apply_parts
from plain_model import References, make_plain, sample_plainly
from timing import peak_bytes


def bench_memory(plain, options) -> dict:
    """The peak of a sampling run in half precision, beyond that of the plain model."""
    width, height = options.size
    half = plain if options.dtype != "float32" else make_plain("bfloat16")
    references = References(half, 3, width, height)
    peaks = {}
    for name, model in {"plain": half, "3 references": apply_parts(half, references.appearance)}.items():
        sample_plainly(model, width, height)  # what the host loads stays
        peaks[name] = peak_bytes(partial(sample_plainly, model, width, height))
    added = peaks["3 references"] - peaks["plain"]
    banks = [bank for reference in references.appearance.references for bank in reference.banks.values()]
    kept = sum(2 * 2 * bank.tokens.numel() for bank in banks)
    print(f"\nMemory of 3 references at {width}x{height} in half precision: {added / 1e6:.0f} MB at the peak of a run; their keys "
          f"and values alone are {kept / 1e6:.0f} MB.")
    return {"peaks": peaks, "added": added, "keys and values": kept}
