"""The square pictures beside the workflows, which the editor's template browser shows: make thumbnails.

What the model in the pack can draw is drawn, in the real ComfyUI. The other workflows get a drawing.
"""

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from harness.server import ROOT, ComfyServer
from parts_drawing import SIDE, TITLE, drawing, titled
from PIL import Image, ImageOps

sys.path.append(str(ROOT))

from sheets.sheet import GAP, PAPER, on_paper

PERSON = ("face", "top", "shoes")
DRAWN = {
    "parts_to_whole": ("Parts2Whole", ("face", "top", "trousers", "pose"), (214, 232, 222)),
    "from_photos": ("From photographs", ("face", "top", "trousers", "pose"), (232, 226, 216), True),
    "training_free_sd15": ("any SD 1.5", ("face", "top", "trousers"), (226, 222, 240)),
    "training_free_sdxl": ("any SDXL", ("face", "top", "trousers"), (240, 222, 232)),
    "edit_flux2_parts": ("Flux.2 Klein", PERSON, (216, 228, 242)),
    "edit_kontext_parts": ("Flux Kontext", PERSON, (240, 230, 210)),
    "edit_qwen_parts": ("Qwen-Image-Edit", PERSON, (228, 238, 208)),
}


def fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """As large as this has room for, with paper around it."""
    return ImageOps.pad(on_paper(picture), (width, height), Image.Resampling.LANCZOS, PAPER)


def doll(outputs: dict[str, Image.Image], parts: list[Image.Image]) -> Image.Image:
    """The parts at the left, each as large as it can be, and who wears them."""
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    room = (SIDE - TITLE - GAP) // len(parts) - GAP
    for i, part in enumerate(parts):
        part = part.convert("RGBA")
        thumbnail.paste(fitted(part.crop(part.getchannel("A").getbbox()), 170, room), (GAP, GAP + i * (room + GAP)))
    picture = fitted(outputs["SaveImage"], SIDE - 170 - 3 * GAP, SIDE - TITLE - GAP)
    thumbnail.paste(picture, (170 + 2 * GAP, GAP))
    return titled(thumbnail, "No download")


def outfits(outputs: dict[str, Image.Image], parts: list[Image.Image]) -> Image.Image:
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    thumbnail.paste(fitted(outputs["Parts2WholeOutfitSheet"], SIDE, SIDE - TITLE), (0, 0))
    return titled(thumbnail, "Every face, every top")


def heat_map(outputs: dict[str, Image.Image], parts: list[Image.Image]) -> Image.Image:
    """The doll, and the first map of the sheet: the strongest part at each position."""
    sheet = outputs["Parts2WholeShowAttribution"].convert("RGB")
    middle = GAP + sheet.height // 4
    right = next(x for x in range(GAP, sheet.width) if sheet.getpixel((x, middle)) == PAPER)
    column = [sheet.getpixel(((GAP + right) // 2, y)) == PAPER for y in range(sheet.height)]
    top = middle - column[middle::-1].index(True) + 1
    bottom = middle + column[middle:].index(True)
    width = (SIDE - 3 * GAP) // 2
    thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
    thumbnail.paste(fitted(outputs["SaveImage"], width, SIDE - TITLE - GAP), (GAP, GAP))
    thumbnail.paste(fitted(sheet.crop((GAP, top, right, bottom)), width, SIDE - TITLE - GAP), (width + 2 * GAP, GAP))
    return titled(thumbnail, "Which part did what")


def result(title: str) -> Callable:
    """The picture that is saved, as large as it can be."""

    def arrange(outputs: dict[str, Image.Image], parts: list[Image.Image]) -> Image.Image:
        thumbnail = Image.new("RGB", (SIDE, SIDE), PAPER)
        thumbnail.paste(fitted(outputs["SaveImage"], SIDE - 2 * GAP, SIDE - TITLE - GAP), (GAP, GAP))
        return titled(thumbnail, title)

    return arrange


RESULTS: dict[str, Callable] = {
    "paper_doll": doll, "outfit_grid": outfits, "attribution": heat_map, "two_people": result("Two people, own clothes"),
    "detail": result("A face, drawn again"), "upscale": result("Twice the size"),
}


def run(server: ComfyServer, name: str) -> tuple[dict[str, Image.Image], list[Image.Image]]:
    """The first picture of each output node, by its class, and the pictures of the parts."""
    workflow = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    outputs = {
        workflow[node]["class_type"]: Image.open(io.BytesIO(server.view(output["images"][0])))
        for node, output in server.run(workflow).items() if output.get("images")
    }
    parts = [node["inputs"]["image"] for node in workflow.values() if node["class_type"] == "Parts2WholeLoadPart"]
    return outputs, [Image.open(server.base / "input" / part) for part in parts]


def main():
    made = {name: drawing(*what) for name, what in DRAWN.items()}
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
        for name, arrange in RESULTS.items():
            print(f"Running {name} ...", flush=True)
            made[name] = arrange(*run(server, name))
    for name, thumbnail in made.items():
        thumbnail.save(ROOT / "workflows" / f"{name}.jpg", quality=90)
    without = sorted({path.stem for path in (ROOT / "workflows").glob("*.json")} - {*made})
    print(f"{len(made)} pictures in workflows/" + (f"; none is made here for {', '.join(without)}" if without else ""))


if __name__ == "__main__":
    main()
