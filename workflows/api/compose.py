"""Queues a workflow with pictures of your own in a running ComfyUI, follows it, and fetches what it drew.

    python compose.py paper_doll.json --part "upper body clothes=shirt.png" --seed 7 --output dressed.png

Needs aiohttp, which ComfyUI brings. Run it with ComfyUI's Python, or copy it with the three files beside it that it imports.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from comfy_answers import ComfyError, pictures, printable, warnings
from comfy_client import Comfy
from workflow_changes import Changes, NoPlace, change, read_workflow

# Of one run. Nobody draws more at once, and no server shall fill a disk.
MOST_FILES, MOST_BYTES = 1000, 4 * 2**30


def wanted(options: argparse.Namespace) -> Changes:
    """As the options tell them."""
    return Changes(
        parts=dict(options.part), masks=dict(options.mask), without=tuple(options.without), widgets=dict(options.set),
        **{name: getattr(options, name) for name in ("pose", "prompt", "negative", "seed", "width", "height")},
    )


async def put(comfy: Comfy, workflow: dict, changes: Changes):
    """Puts the pictures, the texts and the numbers into the workflow. Uploads nothing unless all have a place there."""
    try:
        slots = change(workflow, changes)
    except NoPlace as error:
        raise SystemExit(str(error)) from None
    for slot in slots:
        slot.inputs[slot.name] = await comfy.upload(slot.picture.name, slot.picture.read_bytes())


def title(workflow: dict, id: str) -> str:
    node = workflow.get(id, {})
    return str(node.get("_meta", {}).get("title") or node.get("class_type", id))


class Progress:
    """Prints what the server does: a line for each node and step."""

    def __init__(self, workflow: dict):
        self.workflow = workflow

    def __call__(self, message: dict):
        data = message["data"]
        # A node that another one made is shown as that one.
        id = str(data.get("display_node") or data.get("node"))
        if message["type"] == "executing" and id in self.workflow:
            print(printable(title(self.workflow, id), 100), flush=True)
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
        return read_workflow(Path(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def widget(text: str) -> tuple[tuple[str, str], object]:
    place, _, value = text.partition("=")
    node, _, name = place.partition(".")
    if not name:
        raise argparse.ArgumentTypeError(f"'{text}' is no NODE.INPUT=VALUE, such as 16.steps=30")
    return (node, name), value


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
    parser.add_argument(
        "--mask", type=part, action="append", default=[], help="LABEL=PICTURE, white where the part's picture shows it"
    )
    parser.add_argument("--without", metavar="LABEL", action="append", default=[], help="leaves a part out")
    parser.add_argument("--pose", type=picture, help="a raw IUV DensePose picture")
    parser.add_argument("--prompt")
    parser.add_argument("--negative", help="the negative prompt")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--width", type=int, help="in pixels, as --height")
    parser.add_argument("--height", type=int)
    parser.add_argument(
        "--set", type=widget, metavar="NODE.INPUT=VALUE", action="append", default=[], help="any other value, such as 16.steps=30"
    )
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
            await put(comfy, options.workflow, wanted(options))
            run = await comfy.run(
                options.workflow, Progress(options.workflow),
                lambda faults: print(f"ComfyUI leaves these out:\n{faults}", file=sys.stderr),
            )
            for id, text in warnings(run.outputs):
                print(printable(f"{title(options.workflow, id)}: {text}"), file=sys.stderr)
            await fetch(comfy, pictures(run.outputs), options.output)
    except ComfyError as error:
        raise SystemExit(str(error)) from None
    except OSError as error:
        raise SystemExit(f"'{error.filename}' cannot be read or written: {error.strerror}.") from None


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # a console may lack the letters of a title
    asyncio.run(main())
