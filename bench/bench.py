"""What references cost: SD1.5's U-Net at full size with random weights, with and without them, in one process.

    make bench [ARGS="--size 512x768 --rounds 5 --only steps encoding"]

On a GPU, where there is one, in float16 and at 512x768; else on the CPU, with one thread, in float32 and at 512x512. Models
take turns, and each ratio is taken within its round, so that it holds where the machine's speed drifts. Two clocks run: the
wall's, and the process's CPU time, which does not count what other processes do. Prints the median and the range of the
ratios, of CPU time on a CPU and of wall time on a GPU, and the other clock's median beside them; writes both as JSON, and a
plot.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from harness.host import ROOT, start_host

GPU = torch.cuda.is_available()
torch.set_num_threads(1)
# The host's own attention for CPUs is slower; SDPA is what most users with a GPU run.
start_host(cpu=not GPU, pytorch_attention="--own-attention" not in sys.argv)

from edit import bench_edit  # noqa: E402
from encoding import bench_encoding, bench_requeue  # noqa: E402
from loading import bench_import, bench_loading  # noqa: E402
from memory import bench_memory  # noqa: E402
from plain_model import make_plain  # noqa: E402
from profiled import bench_profile  # noqa: E402
from steps import bench_attribution, bench_growth, bench_ideas, bench_released, bench_steps  # noqa: E402
from timing import HEADLINE, plot  # noqa: E402

BENCHES = {
    "steps": bench_steps, "released": bench_released, "profile": bench_profile, "ideas": bench_ideas,
    "attribution": bench_attribution, "encoding": bench_encoding, "requeue": bench_requeue, "memory": bench_memory,
    "import": bench_import, "loading": bench_loading, "growth": bench_growth, "edit": bench_edit,
}


def _size(text: str) -> tuple[int, int]:
    width, height = (int(number) for number in text.split("x"))
    return width, height


@torch.inference_mode()
def main():
    parser = argparse.ArgumentParser(description="Measures what references cost.")
    parser.add_argument("--size", type=_size, default=(512, 768) if GPU else (512, 512), help="width and height")
    parser.add_argument("--dtype", choices=("float16", "bfloat16", "float32"), default="float16" if GPU else "float32")
    parser.add_argument("--references", type=int, nargs="*", default=[0, 1, 2, 4, 8, 16], help="whose growth is measured")
    parser.add_argument("--sizes", type=int, nargs="*", default=[512, 768], help="the same; up to 1536, with patience")
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 2, 4, 8], help="the same")
    parser.add_argument("--rounds", type=int, default=5, help="how often all is measured; the growth a fifth as often")
    usual = ["steps", "released", "encoding", "requeue", "memory", "import", "loading", "growth"]
    parser.add_argument("--only", nargs="*", choices=BENCHES, default=usual)
    parser.add_argument("--own-attention", action="store_true", help="the host's attention for CPUs instead of PyTorch's")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "bench")
    options = parser.parse_args()
    plain = make_plain(options.dtype) if {*options.only} - {"edit"} else None  # it has models of its own
    results = {"headline": HEADLINE}
    results |= {"device": torch.cuda.get_device_name() if GPU else "CPU", "torch": torch.__version__, "options": vars(options)}
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        results[name] = BENCHES[name](plain, options)
        (options.output / "bench.json").write_text(json.dumps(results, indent=2, default=str) + "\n")
    if tables := {name: results[name] for name in options.only if name not in ("profile", "memory", "import")}:
        plot(tables, options.output / "bench.png")
    print(f"\n{options.output}")


if __name__ == "__main__":
    main()
