"""Composes a paper doll from parts and a pose in the real ComfyUI, headless, with the model in models/paper_doll.

Runs workflows/api/paper_doll.json as it is, and writes a contact sheet: the parts, the pose, the result.
"""

import io
import json
import sys
import tempfile
from pathlib import Path

from harness.server import ROOT, ComfyServer  # first: it puts workflows/api on the path

# isort: split
from comfy_answers import pictures
from PIL import Image, ImageOps

sys.path.append(str(ROOT))

from sheets.sheet import GAP, PAPER, in_a_column, in_a_row, on_paper, scaled, written
from sheets.writing import captions


class Progress:
    """Prints what the server does, a line per node."""

    def __init__(self, server: ComfyServer, workflow: dict):
        self.workflow = workflow
        self.names = {id: info["display_name"] for id, info in server.get("/object_info").items()}

    def __call__(self, message: dict):
        data = message["data"]
        if message["type"] == "executing" and data["node"]:
            node = self.workflow[data["node"]]
            print(f"  {node.get('_meta', {}).get('title') or self.names[node['class_type']]}", flush=True)
        elif message["type"] == "progress":
            end = "\n" if data["value"] == data["max"] else "\r"
            print(f"    {data['value']} of {data['max']}", end=end, flush=True)


def contact_sheet(pictures: dict[str, Image.Image], height: int = 288) -> Image.Image:
    """Pictures side by side, each under its title."""
    titles = captions(pictures)
    tiles = [
        in_a_column([written(titles[title]), scaled(on_paper(picture), height)], GAP) for title, picture in pictures.items()
    ]
    return ImageOps.expand(in_a_row(tiles), GAP, PAPER)


def coloured(iuv: Image.Image) -> Image.Image:
    """A raw IUV pose, so that the eye tells its part indices apart."""
    u, v, index = iuv.split()
    return Image.merge("RGB", (u, v, index.point(lambda index: 10 * index)))


def dressed(server: ComfyServer, workflow: dict) -> dict[str, Image.Image]:
    """Runs it: the picture of each part by its label, the pose, and the result."""
    (saved,) = pictures(server.run(workflow, Progress(server, workflow)))
    shown, pose = {}, {}
    for node in workflow.values():
        if node["class_type"] == "Parts2WholeLoadPart":
            shown[node["inputs"]["label"]] = Image.open(server.base / "input" / node["inputs"]["image"])
        elif node["class_type"] == "LoadImage":
            pose["pose"] = coloured(Image.open(server.base / "input" / node["inputs"]["image"]).convert("RGB"))
    return {**shown, **pose, "result": Image.open(io.BytesIO(server.view(saved)))}


def main():
    workflow = json.loads((ROOT / "workflows" / "api" / "paper_doll.json").read_text())
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(Path(folder))
        print("Starting ComfyUI (a few seconds; no GPU is needed) ...", flush=True)
        with server:
            made = dressed(server, workflow)
    path = ROOT / "output" / "demo.png"
    path.parent.mkdir(exist_ok=True)
    contact_sheet(made).save(path)
    print(f"{len(made) - 2} parts, one pose, one picture: {path}")


if __name__ == "__main__":
    main()
