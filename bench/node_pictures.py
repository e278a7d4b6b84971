"""The pictures of the nodes in their help pages, web/docs/nodes, from the real editor: make node-pictures."""

import json
import tempfile
from pathlib import Path

from harness.editor import chromium, open_editor, picture_node
from harness.server import ROOT, ComfyServer
from PIL import Image

PICTURES = ROOT / "web" / "docs" / "nodes"
# What users have there by the help pages. The nodes list the names only.
NAMED = ("models/human_parsing/segformer_b2_clothes/config.json", "models/densepose/densepose_r50_fpn_dl.torchscript")
COLOURS = 128


def save_an_appearance(server: ComfyServer):
    """So that Load Appearance has one to show, with its picture."""
    workflow = json.loads((ROOT / "workflows" / "api" / "paper_doll.json").read_text())
    (encoder,) = (id for id, node in workflow.items() if node["class_type"] == "Parts2WholeEncodeAppearance")
    needed = [encoder]
    for id in needed:
        needed += [value[0] for value in workflow[id]["inputs"].values() if isinstance(value, list) and value[0] not in needed]
    saved = {"class_type": "Parts2WholeSaveAppearance", "inputs": {"appearance": [encoder, 0], "filename_prefix": "wardrobe/anna"}}
    server.run({id: workflow[id] for id in needed} | {"save": saved})


def main():
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
        for name in NAMED:
            (server.base / name).parent.mkdir(parents=True)
            (server.base / name).touch()
        save_an_appearance(server)
        names = [id for id, node in server.get("/object_info").items() if node["python_module"].endswith("comfyui-parts2whole")]
        with chromium() as browser:
            page = open_editor(browser, server.address)
            for name in names:
                path = Path(folder) / f"{name}.png"
                picture_node(page, name, path)
                picture = Image.open(path).convert("RGB")
                # The median cut would lose the links' colours, which are few pixels.
                picture = picture.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=1, dither=Image.Dither.NONE)
                picture.save(PICTURES / path.name, optimize=True)
    for path in PICTURES.glob("*.png"):
        if path.stem not in names:
            path.unlink()
    print(f"{len(names)} pictures in {PICTURES.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
