"""Queues a workflow with pictures of your own in a running ComfyUI, follows it, and fetches what it drew.

    python compose.py paper_doll.json --part "upper body clothes=shirt.png" --seed 7 --output dressed.png

Needs aiohttp, which ComfyUI brings. Run it with ComfyUI's Python, or copy from it what you need.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import uuid
from pathlib import Path

import aiohttp

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "RandomNoise")


async def upload(session: aiohttp.ClientSession, path: Path) -> str:
    """Copies a picture into ComfyUI's input folder. Returns its name there."""
    form = aiohttp.FormData()
    form.add_field("image", path.read_bytes(), filename=path.name)  # another picture of that name is left alone
    async with session.post("/upload/image", data=form) as answer:
        answer.raise_for_status()
        return (await answer.json())["name"]


async def change(session: aiohttp.ClientSession, workflow: dict, options: argparse.Namespace):
    """Puts the pictures, the prompt and the seed into the workflow."""
    parts = {}
    for node in workflow.values():
        if node["class_type"] == "Parts2WholeLoadPart":
            label = node["inputs"].get("custom_label", "").strip() or node["inputs"]["label"]
            times = sum(name.split("#")[0] == label for name in parts)
            parts[f"{label}#{times + 1}" if times else label] = node
    for label, path in options.part:
        label = label.removesuffix("#1")
        if label not in parts:
            raise SystemExit(f"The workflow has no Load Part with the label '{label}': it has {', '.join(sorted(parts))}.")
        parts[label]["inputs"]["image"] = await upload(session, path)
    for node in workflow.values():
        inputs = node["inputs"]
        if options.pose and node["class_type"] == "Parts2WholeApplyPose":
            workflow[inputs["image"][0]]["inputs"]["image"] = await upload(session, options.pose)
        if node["class_type"] in SAMPLERS and options.seed is not None:
            inputs.update({name: options.seed for name in ("seed", "noise_seed") if name in inputs})
        if node["class_type"] in SAMPLERS and options.prompt is not None and "positive" in inputs:
            workflow[inputs["positive"][0]]["inputs"]["text"] = options.prompt


async def follow(session: aiohttp.ClientSession, workflow: dict) -> list[dict]:
    """Queues the workflow and prints what ComfyUI does. Returns where its pictures are."""
    client = uuid.uuid4().hex
    pictures = []
    async with session.ws_connect(f"/ws?clientId={client}", max_msg_size=0) as socket:
        async with session.post("/prompt", json={"prompt": workflow, "client_id": client}) as answer:
            queued = await answer.json()
            errors = faults(workflow, queued)
            if answer.status != 200:
                raise SystemExit(errors)
            if errors:
                print(f"ComfyUI leaves these out:\n{errors}", file=sys.stderr)
        async for message in socket:
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # a preview
            event = json.loads(message.data)
            kind, data = event["type"], event["data"]
            if data.get("prompt_id") != queued["prompt_id"]:
                continue
            if kind == "executing" and data["node"]:
                node = workflow[data["node"]]
                print(node.get("_meta", {}).get("title") or node["class_type"], flush=True)
            elif kind == "progress":
                print(f"  {data['value']} of {data['max']}", flush=True)
            elif kind == "executed":
                pictures += (data["output"] or {}).get("images", [])
            elif kind in ("execution_error", "execution_interrupted"):
                raise SystemExit(f"{data.get('node_type')}: {data.get('exception_message', kind)}")
            elif kind == "execution_success":
                break
    return pictures


def faults(workflow: dict, queued: dict) -> str:
    """What ComfyUI finds wrong with a workflow, a line for each fault."""
    if not queued.get("node_errors"):
        return "{message}: {details}".format(**queued["error"]) if "error" in queued else ""
    lines = {}
    for id, node in queued["node_errors"].items():
        for error in node["errors"]:
            # A node's own check is reported for each input that it looked at.
            said = error["details"].split(" - ", 1)[-1]
            lines.setdefault((id, said), f"Node {id}, {workflow[id]['class_type']}: {error['message']}: {error['details']}")
    return "\n".join(lines.values())


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
    if not isinstance(workflow, dict) or not all(isinstance(node, dict) and "class_type" in node for node in workflow.values()):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not in API format: take one of workflows/api, or export it from the editor by File, Export (API)"
        )
    return workflow


def picture(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"there is no picture '{text}'")
    return Path(text)


async def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("workflow", type=api_workflow, help="a file in API format")
    parser.add_argument(
        "--part", type=part, action="append", default=[],
        help="LABEL=PICTURE, as often as you like; LABEL#2=PICTURE for the second Load Part of that label",
    )
    parser.add_argument("--pose", type=picture, help="a raw IUV DensePose picture")
    parser.add_argument("--prompt")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--output", type=Path, default=Path("composed.png"))
    options = parser.parse_args()
    workflow = options.workflow
    if "://" not in options.server:
        options.server = f"http://{options.server}"
    async with aiohttp.ClientSession(options.server) as session:
        try:
            await change(session, workflow, options)
            pictures = await follow(session, workflow)
        except aiohttp.ClientConnectorError:
            raise SystemExit(f"No ComfyUI answers at {options.server}: start it, or say by --server where it is.") from None
        options.output.parent.mkdir(parents=True, exist_ok=True)
        # What is saved, then what is only shown, such as the sheet of an outfit grid.
        for i, place in enumerate(sorted(pictures, key=lambda place: place["type"] != "output")):
            path = options.output if i == 0 else options.output.with_stem(f"{options.output.stem}_{i + 1}")
            async with session.get("/view", params=place) as answer:
                path.write_bytes(await answer.read())
            print(path)


if __name__ == "__main__":
    asyncio.run(main())
