"""Composes a person from three parts, a pose and image tokens in the real ComfyUI, headless, with the tiny test checkpoint.

The checkpoint has random weights: the run shows that everything works, and the picture is noise.
"""

import json
import shutil
import tempfile
from pathlib import Path

from comfy_server import ROOT, ComfyServer

GOLDEN = ROOT / "tests" / "golden"
PICTURES = {"2": "ref_0.png", "3": "ref_1.png", "4": "ref_2.png", "10": "pose.png"}


def tiny_workflow() -> dict:
    """workflows/api/parts_to_whole.json at the size of the tiny checkpoint and with its pictures."""
    workflow = json.loads((ROOT / "workflows" / "api" / "parts_to_whole.json").read_text())
    workflow["1"]["inputs"]["checkpoint"] = "tiny"
    for node, picture in PICTURES.items():
        workflow[node]["inputs"]["image"] = picture
    workflow["6"]["inputs"]["value"], workflow["7"]["inputs"]["value"] = 128, 192
    workflow["16"]["inputs"]["steps"] = 20
    return workflow


def install_tiny_checkpoint(base: Path):
    (base / "models" / "parts2whole" / "tiny").symlink_to(GOLDEN / "checkpoint")
    for picture in (GOLDEN / "images").iterdir():
        shutil.copy(picture, base / "input")


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


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = ComfyServer(Path(folder))
        install_tiny_checkpoint(server.base)
        print("Starting ComfyUI (a few seconds; no GPU is needed) ...", flush=True)
        with server:
            workflow = tiny_workflow()
            outputs = server.run(workflow, Progress(server, workflow))
            path = ROOT / "output" / "demo.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(server.view(outputs["18"]["images"][0]))
    print(f"Three parts, one pose: {path}\n(The tiny test checkpoint has random weights, so the picture is noise.)")


if __name__ == "__main__":
    main()
