"""Queues a workflow with pictures of your own in a running ComfyUI, follows it, and fetches what it drew.

    python compose.py paper_doll.json --part "upper body clothes=shirt.png" --seed 7 --output dressed.png

Needs aiohttp, which ComfyUI brings. Run it with ComfyUI's Python, or copy from it and from comfy_client.py what you need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path

from comfy_client import Comfy, ComfyError, pictures, printable

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "RandomNoise")
# From a sampler to the prompt, in order of preference.
TO_PROMPT = ("text", "positive", "conditioning", "conditioning_1", "conditioning_to")
# Of one run. Nobody draws more at once, and no server shall fill a disk.
MOST_FILES, MOST_BYTES = 1000, 4 * 2**30


def text_of(workflow: dict, value) -> str | None:
    """The text of an input, also where it comes from a node that only holds it. None where it is computed."""
    for _ in workflow:
        if not isinstance(value, list) or value[0] not in workflow:
            break
        inputs = [*workflow[value[0]]["inputs"].values()]
        value = inputs[0] if len(inputs) == 1 else None
    return value if isinstance(value, str) else None


def furthest(workflow: dict, node: dict, names: tuple[str, ...]) -> tuple[dict, str]:
    """Follows the inputs of these names to the node where the last of them is. Returns it and the name."""
    for _ in workflow:
        name = next(name for name in names if name in node["inputs"])
        value = node["inputs"][name]
        before = workflow.get(value[0]) if isinstance(value, list) else None
        if before is None or not any(name in before["inputs"] for name in names):
            break
        node = before
    return node, name


def find_parts(workflow: dict) -> dict[str, dict]:
    """The Load Part nodes by label; the second of a label as label#2, and as `node 7` where the label is computed."""
    parts = {}
    for id, node in workflow.items():
        if node["class_type"] == "Parts2WholeLoadPart":
            inputs = node["inputs"]
            custom, label = text_of(workflow, inputs.get("custom_label", "")), text_of(workflow, inputs.get("label"))
            label = f"node {id}" if custom is None else custom.strip() or label or f"node {id}"
            times = sum(name.split("#")[0] == label for name in parts)
            parts[f"{label}#{times + 1}" if times else label] = node
    return parts


def find_texts(workflow: dict, starts: list[dict], names: tuple[str, ...]) -> list[tuple[dict, str]]:
    """The nodes and inputs that hold a text and are reached from these nodes by inputs of these names."""
    ends = [furthest(workflow, node, names) for node in starts if any(name in node["inputs"] for name in names)]
    return [(node, name) for node, name in ends if text_of(workflow, node["inputs"][name]) is not None]


async def change(comfy: Comfy, workflow: dict, options: argparse.Namespace):
    """Puts the pictures, the prompt and the seed into the workflow. Uploads nothing unless all have a place there."""
    parts, uploads = find_parts(workflow), []
    for label, path in options.part:
        label = label.removesuffix("#1")
        if label not in parts:
            raise SystemExit(f"The workflow has no Load Part with the label '{label}': it has {', '.join(sorted(parts))}.")
        uploads.append((parts[label]["inputs"], path))
    if options.pose:
        applied = [node for node in workflow.values() if node["class_type"] == "Parts2WholeApplyPose"]
        poses = find_texts(workflow, applied, ("image",))
        if not poses:
            raise SystemExit("The workflow has no Apply Pose whose image comes from a Load Image, so --pose has no place in it.")
        uploads += [(node["inputs"], options.pose) for node, _ in poses]
    samplers = [node for node in workflow.values() if node["class_type"] in SAMPLERS or node["class_type"].endswith("Guider")]
    if options.seed is not None:
        seeds = [(node["inputs"], name) for node in samplers for name in ("seed", "noise_seed") if name in node["inputs"]]
        if not seeds:
            raise SystemExit(f"The workflow has none of {', '.join(SAMPLERS)}, so --seed has no place in it.")
        for inputs, name in seeds:
            inputs[name] = options.seed
    if options.prompt is not None:
        prompts = find_texts(workflow, samplers, TO_PROMPT)
        if not prompts:
            raise SystemExit("No sampler's positive conditioning leads to a node with a text, so --prompt has no place.")
        for node, name in prompts:
            node["inputs"][name] = options.prompt
    for inputs, path in uploads:
        inputs["image"] = await comfy.upload(path)


class Progress:
    """Prints what the server does: a line for each node and step."""

    def __init__(self, workflow: dict):
        self.workflow = workflow

    def __call__(self, message: dict):
        data = message["data"]
        # A node that another one made is shown as that one.
        node = self.workflow.get(str(data.get("display_node") or data.get("node")))
        if message["type"] == "executing" and node:
            print(printable(str(node.get("_meta", {}).get("title") or node["class_type"]), 100), flush=True)
        elif message["type"] == "progress":
            print(printable(f"  {data.get('value')} of {data.get('max')}", 100), flush=True)


async def fetch(comfy: Comfy, places: list[dict[str, str]], output: Path):
    """Writes the pictures to the output, and to output_2, output_3 ...: what is saved, then what is only shown, such as a sheet."""
    if not places:
        raise SystemExit("The workflow has ended and drew no picture: nothing is written.")
    if len(places) > MOST_FILES:
        raise SystemExit(f"{comfy.address} offers {len(places)} pictures, more than {MOST_FILES}: nothing is written.")
    output.parent.mkdir(parents=True, exist_ok=True)
    left = MOST_BYTES
    for i, place in enumerate(sorted(places, key=lambda place: place["type"] != "output")):
        path = output if i == 0 else output.with_stem(f"{output.stem}_{i + 1}")
        left -= await comfy.fetch(place, path, left)
        print(path)


def part(text: str) -> tuple[str, Path]:
    label, _, path = text.partition("=")
    if not path:
        raise argparse.ArgumentTypeError(f"'{text}' is no LABEL=PICTURE")
    return label, picture(path)


def api_workflow(text: str) -> dict:
    try:
        workflow = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"'{text}' cannot be read ({error})") from None
    if not isinstance(workflow, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict) for node in workflow.values()
    ):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not in API format: take one of workflows/api, or export it from the editor by File, Export (API)"
        )
    return workflow


def picture(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no picture '{text}'")
    return Path(text)


def header(text: str) -> tuple[str, str]:
    name, _, value = (side.strip() for side in text.partition(":"))
    if not name or not value or not text.isprintable():
        raise argparse.ArgumentTypeError("a header is NAME: VALUE, such as 'Authorization: Bearer 1234'")
    return name, value


async def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", type=api_workflow, help="a file in API format")
    parser.add_argument(
        "--part", type=part, action="append", default=[],
        help="LABEL=PICTURE, as often as you like; LABEL#2=PICTURE for the second Load Part of that label",
    )
    parser.add_argument("--pose", type=picture, help="a raw IUV DensePose picture")
    parser.add_argument("--prompt")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--server", default="http://127.0.0.1:8188", help="its address, with a path where it has one")
    parser.add_argument("--header", type=header, action="append", default=[], help="such as 'Authorization: Bearer 1234'")
    parser.add_argument("--output", type=Path, default=Path("composed.png"))
    options = parser.parse_args(arguments)
    try:
        server = Comfy(options.server, dict(options.header))
    except ValueError as error:
        parser.error(str(error))
    try:
        async with server as comfy:
            await change(comfy, options.workflow, options)
            outputs = await comfy.run(
                options.workflow, Progress(options.workflow),
                lambda faults: print(f"ComfyUI leaves these out:\n{faults}", file=sys.stderr),
            )
            await fetch(comfy, pictures(outputs), options.output)
    except ComfyError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"'{error.filename}' cannot be read or written: {error.strerror}.") from None


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack the letters of a title
    asyncio.run(main())
