"""What references cost: SD1.5's U-Net at full size with random weights, with and without them, in one process.

    make bench [ARGS="--size 512x768 --rounds 5 --only steps encoding"]

On a GPU, where there is one, in float16 and at 512x768; else on the CPU, in float32 and at 512x512. Models take turns, and
each ratio is taken within its round, so that it holds where the machine's speed drifts. Prints the median and the range of
the ratios; writes them as JSON and as a plot.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from unittest.mock import patch

sys.path.insert(0, os.environ["COMFYUI_PATH"])

import comfy.cli_args
import torch

GPU = torch.cuda.is_available()
# The host's own attention for CPUs is slower; SDPA is what most users with a GPU run.
comfy.cli_args.args.use_pytorch_cross_attention = "--own-attention" not in sys.argv
os.environ["PARTS2WHOLE_DEVICE"] = "gpu" if GPU else "cpu"  # for conftest
comfy.cli_args.args.cpu = not GPU

ROOT = Path(__file__).resolve().parents[1]
sys.path[1:1] = [str(ROOT / "tests"), str(ROOT)]

import comfy.sd  # noqa: E402
import comfy.utils  # noqa: E402
import conftest  # noqa: E402, F401
from comfy.ldm.models.autoencoder import AutoencoderKL  # noqa: E402
from full_size import UNET, VAE, make_checkpoint  # noqa: E402
from harness.workbench import apply_parts, noise, random_unet, rel, sample  # noqa: E402
from parts2whole.attention.bank import Appearance, Bank, Origin, Reference, select_tokens  # noqa: E402
from parts2whole.attention.patch import apply as patch_apply  # noqa: E402
from parts2whole.attention.patch.apply import RUN, record  # noqa: E402
from parts2whole.attention.patch.host import transformer_blocks  # noqa: E402
from parts2whole.attention.patch.unet_patches import CONDITIONAL  # noqa: E402
from parts2whole.encoders.appearance import AppearanceEncoder, encode_appearance, encode_reference  # noqa: E402
from parts2whole.encoders.checkpoint.load import load_checkpoint  # noqa: E402
from parts2whole.pictures.part import LabelledPart, make_part  # noqa: E402
from released_attention import apply_as_released  # noqa: E402
from timing import compare, peak_bytes, plot, seconds_of, show, summarise, synchronise  # noqa: E402
from torch.autograd import DeviceType  # noqa: E402
from torch.profiler import ProfilerActivity  # noqa: E402

STEPS = 20 if GPU else 2  # of a run that is timed
# How much of the picture the masks of six real references cover.
COVERAGE = (0.52, 0.32, 0.21, 0.51, 0.29, 0.37)


class References:
    """References of a frame's size with random features, in both forms: as this pack keeps them and as the release does."""

    def __init__(self, model, count: int, width: int, height: int):
        generator = torch.Generator().manual_seed(count)
        self.features, references = [], []
        for i in range(count):
            features, banks = {}, {}
            for address, block in transformer_blocks(model.model.diffusion_model).items():
                channels = block.attn1.to_k.weight.shape[1]
                level = 3 if address.name == "middle" else {320: 0, 640: 1, 1280: 2}[channels]
                tokens = -(-height // 8 // 2**level) * -(-width // 8 // 2**level)
                mask = (torch.arange(tokens) < tokens * COVERAGE[i % len(COVERAGE)]).float()
                every = torch.randn(tokens, channels, generator=generator)
                features[address] = every * mask[:, None]
                banks[address] = select_tokens(every, mask)
            self.features.append(features)
            references.append(Reference("part", banks, 768, Origin("", "", "", (width, height, "stretch"))))
        self.appearance = Appearance(tuple(references))


def make_plain(dtype: str):
    model = random_unet("SD15", getattr(torch, dtype), **UNET)
    model.model.memory_usage_factor = 0  # by which the host decides whether to split a batch
    return model


def seconds_per_step(
    model, width: int, height: int, batch: int = 1, cfg: float = 3.5, change: Callable = lambda options: None
) -> float:
    """The mean of the steps of a run but for the first, in which the references' keys and values are projected.

    change: called with the transformer_options before each step
    """
    times = []

    def timed(apply_model, args):
        change(args["c"]["transformer_options"])
        if len(times) == 1:  # and not again before the end: a GPU is kept busy ahead of the steps
            synchronise()
        times.append(time.perf_counter())
        return apply_model(args["input"], args["timestep"], **args["c"])

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    _sample(model, width, height, batch, cfg)
    synchronise()
    end = time.perf_counter()
    assert len(times) == STEPS, "the host has split the batch"
    return (end - times[1]) / (STEPS - 1)


def _sample(model, width: int, height: int, batch: int = 1, cfg: float = 3.5) -> torch.Tensor:
    sigmas = model.get_model_object("model_sampling").sigmas[torch.linspace(801, 601, STEPS + 1).long()]
    positive, negative = ([[torch.ones(1, 77, 768) * x, {}]] for x in (0.1, -0.1))
    return sample(
        model, None, noise(height // 8, width // 8, batch), positive=positive, negative=negative, sigmas=sigmas, cfg=cfg
    )


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
    difference = rel(_sample(ours, width, height), _sample(released, width, height))
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

    def carried_by(mask: bool) -> float:
        with patch.object(patch_apply, "takes_mask", lambda *args: mask):
            return step(ours)

    step = partial(seconds_per_step, width=width, height=height)
    takes = {
        "plain": partial(step, plain),
        "all ideas": partial(step, ours),
        "wider heads": partial(carried_by, False),
        "a mask": partial(carried_by, True),
        "projected in every step": partial(step, ours, change=lambda transformer: transformer.pop(RUN)),
        "in both halves": partial(step, ours, change=lambda transformer: transformer.update({CONDITIONAL: [True, True]})),
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
    takes["3 references, recorded"] = lambda: seconds_per_step(record(ours)[0], width, height)
    rows = compare(takes, options.rounds, "3 references")
    show(f"Recording the attribution at {width}x{height}, against the same without", rows)
    return rows


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
    _sample(model, width, height)
    return steps[1].key_averages()


def bench_encoding(plain, options) -> dict:
    """One reference, by the U-Net alone."""
    width, height = options.size
    encoder = AppearanceEncoder(plain)
    part = make_part("part", torch.rand(1, height, width, 3))
    labelled = LabelledPart(part, torch.ones(1, 77, 768) * 0.1, None)
    latent, mask = torch.randn(1, 4, height // 8, width // 8), torch.ones(height, width)

    encode = partial(seconds_of, lambda: encode_reference(encoder, latent, mask, labelled, width, height))
    encode()
    takes = {
        "plain, unguided": partial(seconds_per_step, plain, width, height, cfg=1.0),
        "encoding one reference": encode,
        # What a batch of references would take at least, for each.
        "plain, a batch of three / 3": lambda: seconds_per_step(plain, width, height, batch=3, cfg=1.0) / 3,
    }
    rows = compare(takes, options.rounds, "plain, unguided")
    show(f"Encoding a reference at {width}x{height}, against a plain unguided forward pass", rows)
    return rows


def bench_requeue(plain, options) -> dict:
    """Encode Appearance with its VAE: three parts, then with one of them changed, then as they were."""
    width, height = options.size
    encoder = AppearanceEncoder(plain)
    vae = comfy.sd.VAE(sd=AutoencoderKL(ddconfig=VAE, embed_dim=4).state_dict())

    def part(seed: int) -> LabelledPart:
        image = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(seed))
        return LabelledPart(make_part("part", image), torch.ones(1, 77, 768) * 0.1, None)

    def encode(*parts: LabelledPart) -> float:
        return seconds_of(lambda: encode_appearance(encoder, vae, parts, width, height))

    encode(part(0))
    times = {"three parts": [], "one of them changed": [], "none changed": []}
    for i in range(options.rounds):
        first, second, third, other = (part(4 * i + j) for j in range(4))
        times["three parts"].append(encode(first, second, third))
        times["one of them changed"].append(encode(first, other, third))
        times["none changed"].append(encode(first, other, third))
    rows = summarise(times, "three parts")
    show(f"Encode Appearance at {width}x{height}, queued again, against the first time", rows)
    return rows


def bench_memory(plain, options) -> dict:
    """The peak of a sampling run in half precision, beyond that of the plain model."""
    width, height = options.size
    half = plain if options.dtype != "float32" else make_plain("bfloat16")
    references = References(half, 3, width, height)
    peaks = {}
    for name, model in {"plain": half, "3 references": apply_parts(half, references.appearance)}.items():
        _sample(model, width, height)  # what the host loads stays
        peaks[name] = peak_bytes(partial(_sample, model, width, height))
    added = peaks["3 references"] - peaks["plain"]
    banks = [bank for reference in references.appearance.references for bank in reference.banks.values()]
    kept = sum(2 * 2 * bank.tokens.numel() for bank in banks)
    print(f"\nMemory of 3 references at {width}x{height} in half precision: {added / 1e6:.0f} MB at the peak of a run; their keys "
          f"and values alone are {kept / 1e6:.0f} MB.")
    return {"peaks": peaks, "added": added, "keys and values": kept}


def bench_loading(plain, options) -> dict:
    """Load Parts2Whole of a checkpoint of the release's size, against reading the same files. Needs 6 GB of disk for a while."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place, "checkpoint")
        make_checkpoint(folder)
        files = [path for path in folder.rglob("*") if path.suffix in (".safetensors", ".pth")]

        def read():
            for path in files:
                path.read_bytes()

        takes = {
            "reading the files": partial(seconds_of, read),
            "Load Parts2Whole": partial(seconds_of, partial(load_checkpoint, str(folder))),
        }
        rows = compare(takes, options.rounds, "reading the files")
        show(f"Loading {sum(path.stat().st_size for path in files) / 1e9:.1f} GB, the files in the system's memory already", rows)
    return rows


IMPORT = """
import asyncio, sys, time
sys.path.insert(0, {host!r})
import comfy.cli_args
comfy.cli_args.args.cpu = {cpu}
import folder_paths, nodes, tempfile
folder_paths.set_input_directory(tempfile.mkdtemp())
asyncio.run(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
begin = time.perf_counter()
asyncio.run(nodes.load_custom_node({pack!r}, module_parent="custom_nodes"))
print("seconds", time.perf_counter() - begin)
"""


def bench_import(plain, options) -> dict:
    """How long the pack keeps the server's start, after the host's own nodes."""
    script = IMPORT.format(host=os.environ["COMFYUI_PATH"], cpu=not GPU, pack=str(ROOT))
    outputs = [subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout for _ in range(3)]
    seconds = [float(output.split("seconds")[-1]) for output in outputs]
    print(f"\nImport of the pack when the server starts: {statistics.median(seconds):.2f} s")
    return {"seconds": statistics.median(seconds)}


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


BENCHES = {
    "steps": bench_steps, "released": bench_released, "profile": bench_profile, "ideas": bench_ideas,
    "attribution": bench_attribution, "encoding": bench_encoding, "requeue": bench_requeue, "memory": bench_memory,
    "import": bench_import, "loading": bench_loading, "growth": bench_growth,
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
    comfy.utils.PROGRESS_BAR_ENABLED = False
    plain = make_plain(options.dtype)
    results = {"device": torch.cuda.get_device_name() if GPU else "CPU", "torch": torch.__version__, "options": vars(options)}
    options.output.mkdir(parents=True, exist_ok=True)
    for name in options.only:
        results[name] = BENCHES[name](plain, options)
        (options.output / "bench.json").write_text(json.dumps(results, indent=2, default=str) + "\n")
    if tables := {name: results[name] for name in options.only if name not in ("profile", "memory", "import")}:
        plot(tables, options.output / "bench.png")
    print(f"\n{options.output}")


if __name__ == "__main__":
    main()
