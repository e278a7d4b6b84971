"""What references cost: one guided step of SD1.5's U-Net with and without them, random weights, in one process.

    make bench [SIZE=512x512] [ROUNDS=5]

The models take turns, and the ratio to the plain model is taken within each round, so that it holds where the machine's
speed drifts. Prints the median and the range of the ratios.
"""

import os
import statistics
import sys
import time

sys.path.insert(0, os.environ["COMFYUI_PATH"])

import comfy.cli_args

comfy.cli_args.args.use_pytorch_cross_attention = True  # what most users with a GPU run

sys.path.insert(1, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests"))

import conftest  # noqa: E402, F401
import torch  # noqa: E402
from full_size import UNET  # noqa: E402
from parts2whole.attention.bank import Appearance, Bank, Reference  # noqa: E402
from parts2whole.attention.unet_blocks import transformer_blocks  # noqa: E402
from workbench import apply_parts, noise, random_unet, sample  # noqa: E402

# How much of the picture the masks of six real references cover.
COVERAGE = (0.52, 0.32, 0.21, 0.51, 0.29, 0.37)


def random_appearance(model, count: int, height: int, width: int) -> Appearance:
    """References of the target's size."""
    references = []
    for coverage in COVERAGE[:count]:
        banks = {}
        for address, block in transformer_blocks(model.model.diffusion_model).items():
            channels = block.attn1.to_k.weight.shape[1]
            level = 3 if address.name == "middle" else {320: 0, 640: 1, 1280: 2}[channels]
            tokens = -(-height // 2**level) * -(-width // 2**level)
            kept = int(tokens * coverage)
            banks[address] = Bank(torch.randn(kept, channels), tokens - kept)
        references.append(Reference("part", banks, 768))
    return Appearance(tuple(references))


def seconds_per_step(model, latent: dict) -> float:
    """The second of two steps: in the first the references' keys and values are projected."""
    times = []

    def timed(apply_model, args):
        begin = time.perf_counter()
        result = apply_model(args["input"], args["timestep"], **args["c"])
        times.append(time.perf_counter() - begin)
        return result

    model = model.clone()
    model.set_model_unet_function_wrapper(timed)
    sigmas = model.get_model_object("model_sampling").sigmas[[801, 701, 601]]
    positive, negative = ([[torch.ones(1, 77, 768) * x, {}]] for x in (0.1, -0.1))
    sample(model, None, latent, positive=positive, negative=negative, sigmas=sigmas)
    return times[1]


@torch.inference_mode()
def main():
    width, height = (int(x) // 8 for x in os.environ.get("SIZE", "512x512").split("x"))
    plain = random_unet("SD15", **UNET)
    models = {"plain": plain}
    for count in (1, 3, 6):
        models[f"{count} references"] = apply_parts(plain, random_appearance(plain, count, height, width))
    models["3 references, drop"] = apply_parts(plain, random_appearance(plain, 3, height, width), mask_mode="drop")

    times = {name: [] for name in models}
    for _ in range(int(os.environ.get("ROUNDS", 5))):
        for name, model in models.items():
            times[name].append(seconds_per_step(model, noise(height, width)))
    print(f"One guided step at {width * 8}x{height * 8}: time, and its ratio to the plain model (median, least, most)")
    for name, values in times.items():
        ratios = [a / b for a, b in zip(values, times["plain"])]
        print(f"  {name:20} {statistics.median(values):8.2f} s {statistics.median(ratios):8.2f} "
              f"{min(ratios):6.2f} {max(ratios):6.2f}")


if __name__ == "__main__":
    main()
