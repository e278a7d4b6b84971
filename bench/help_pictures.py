"""The pictures in the help pages of what nodes do, web/docs/*.png: make help-pictures. Some by their names in ARGS.

What a model draws comes from the workflows, and masks and poses from the nodes, in the real ComfyUI. The photograph is a drawn
figure, whose regions are known.
"""

import io
import itertools
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from demo import coloured, contact_sheet  # first: it puts this pack on the path

# isort: split
from harness.server import ROOT, ComfyServer
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from pictures.frame import fit_to_frame
from pictures.label_maps import parts_of, read_label_map
from pictures.part import LABELS, make_part
from sheets.sheet import as_given, to_tensor
from training.paper_dolls.examples import FIGURE, SEED
from training.paper_dolls.pairs import HEIGHT, WIDTH, Pair

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS
SHOWN = 256  # pixels high
MARK, SECOND = (214, 51, 108), (38, 110, 200)
# Of a label map in the PASCAL VOC palette: face, hat, upper-clothes, pants, left-shoe of ATR.
PALETTE = {FACE: (192, 128, 0), HAIR: (128, 0, 0), UPPER: (0, 0, 128), LOWER: (0, 128, 128), SHOES: (192, 0, 0)}
PLACES, SOFT = "0.1 0.5, 0.4 0.5", 0.15
# Of the paper doll: head and chest, in the shape and by the factor in which the model draws them at its own size.
BOX, FACTOR = (64, 16, 128, 192), 2
# More noise than a detail should have, so that the pose tells what is drawn.
AGAIN = {"steps": 6, "cfg": 2, "denoise": 0.2}

Link = list  # of a workflow: the node's id, and the number of its output


class Studio:
    """A workflow, to which nodes are added."""

    def __init__(self, server: ComfyServer, name: str = ""):
        self.server = server
        self.given = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text()) if name else {}
        self.nodes = {**self.given}

    def ids(self, kind: str) -> list[str]:
        """Of the workflow's own nodes."""
        return [id for id, node in self.given.items() if node["class_type"] == kind]

    def add(self, kind: str, **inputs) -> str:
        """The new node's id."""
        id = f"{kind} {len(self.nodes)}"
        self.nodes[id] = {"class_type": kind, "inputs": inputs}
        return id

    def load(self, picture: Image.Image, kind: str, **inputs) -> Link:
        name = f"{len(self.nodes)}.png"
        picture.save(self.server.base / "input" / name)
        return [self.add(kind, image=name, **inputs), 0]

    def shown(self, *links: Link) -> list[Image.Image]:
        """Runs what these pictures need."""
        asked = [self.add("PreviewImage", images=link) for link in links]
        needed = [*asked]
        for id in needed:
            linked = (value[0] for value in self.nodes[id]["inputs"].values() if isinstance(value, list))
            needed += [id for id in linked if id not in needed]
        outputs = self.server.run({id: self.nodes[id] for id in needed})
        files = [self.server.view(outputs[id]["images"][0]) for id in asked]
        return [Image.open(io.BytesIO(file)).convert("RGB") for file in files]

    def masks(self, *links: Link) -> list[Image.Image]:
        """Masks as pictures in grey."""
        return [mask.convert("L") for mask in self.shown(*([self.add("MaskToImage", mask=link), 0] for link in links))]


def sheet(name: str, kind: str) -> Callable[[ComfyServer], Image.Image]:
    """What a workflow's node of this kind shows."""

    def make(server: ComfyServer) -> Image.Image:
        studio = Studio(server, name)
        return studio.shown([*studio.ids(kind), 0])[0]

    return make


def figure() -> tuple[Image.Image, dict[str, np.ndarray]]:
    """The drawn figure, and where each part is seen."""
    drawing = Pair(SEED, FIGURE).drawing
    return Image.fromarray(drawing.image), {label: region > 0.5 for label, region in drawing.regions.items()}


def fit(server: ComfyServer) -> Image.Image:
    reference = Pair(SEED, FIGURE, round(1.7 * WIDTH), HEIGHT).reference(UPPER)
    part = make_part(UPPER, to_tensor(reference.image), to_tensor(reference.mask))
    fitted = {f"fit: {how}": as_given(fit_to_frame(part, WIDTH, HEIGHT, how)[0][0]) for how in ("stretch", "pad", "crop")}
    return contact_sheet({"a picture": reference.image, **fitted}, SHOWN)


def parts_of_a_photo(server: ComfyServer) -> Image.Image:
    photograph, regions = figure()
    colours = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for label, region in regions.items():
        colours[region] = PALETTE[label]
    label_map = Image.fromarray(colours)
    tiles = {"photograph": photograph, "label map": label_map}
    parts = parts_of(to_tensor(photograph), read_label_map(to_tensor(label_map), "ATR"), "ATR", 0.001)
    for label, part in parts.items():
        if part:
            tiles[label] = photograph.copy()
            tiles[label].putalpha(Image.fromarray(part.mask[0].numpy() > 0).convert("L"))
    return contact_sheet(tiles, SHOWN)


def refine_mask(server: ComfyServer) -> Image.Image:
    photograph, regions = figure()
    draw = ImageDraw.Draw(given := Image.fromarray(regions[UPPER]).convert("L"))
    # Holes inside of the border, and specks outside of it.
    inside, outside = given.filter(ImageFilter.MinFilter(13)), ImageChops.invert(given.filter(ImageFilter.MaxFilter(13)))
    for where, count, value in ((inside, 12, 0), (outside, 16, 255)):
        for y, x in np.random.default_rng(0).permutation(np.argwhere(where))[:count].tolist():
            half = 1 + x % 4
            draw.rectangle((x - half, y - half, x + half, y + half), value)
    studio = Studio(server)
    mended = {"mask": studio.load(given, "LoadImageMask", channel="red"), "largest": True, "fill_holes": True, "edges": 0}
    settings = {"largest, fill_holes": (0, 0), "and grow 8": (8, 0), "and feather 8": (8, 8)}
    nodes = [studio.add("Parts2WholeRefineMask", **mended, grow=grow, feather=feather) for grow, feather in settings.values()]
    masks = zip(("as given", *settings), (given, *studio.masks(*([id, 0] for id in nodes))))
    return contact_sheet({title: marked(photograph, mask) for title, mask in masks}, SHOWN)


def pose_region(server: ComfyServer) -> Image.Image:
    pose = Image.fromarray(Pair(SEED, FIGURE).pose)
    studio, labels = Studio(server), (FACE, UPPER, LOWER, SHOES)
    image = studio.load(pose, "LoadImage")
    nodes = [studio.add("Parts2WholePoseRegion", image=image, label=label, grow=0.04) for label in labels]
    index = coloured(pose).getchannel("B").convert("RGB")
    regions = {label: marked(index, region) for label, region in zip(labels, studio.masks(*([id, 0] for id in nodes)))}
    return contact_sheet({"part index of the pose": index, **regions}, SHOWN)


def people(server: ComfyServer) -> Image.Image:
    studio = Studio(server, "two_people")
    (id,), (decoder,) = studio.ids("Parts2WholePeople"), studio.ids("VAEDecode")
    inputs = studio.nodes[id]["inputs"]
    inputs["places"] = PLACES
    soft = studio.add("Parts2WholePeople", **inputs | {"soft": SOFT})
    pose, picture = studio.shown([id, 0], [decoder, 0])
    body = coloured(pose).getchannel("B").point(lambda value: value and 40 + value // 2)
    white = Image.new("RGB", pose.size, "white")
    hard, soft = (
        Image.composite(white, ImageChops.add(*map(tinted, studio.masks([node, 1], [node, 2]), (MARK, SECOND))), body)
        for node in (id, soft)
    )
    for apply in studio.ids("Parts2WholeApply"):
        del studio.nodes[apply]["inputs"]["region"]
    (without,) = studio.shown([decoder, 0])
    titles = ("regions of two people", "with a soft border", "the picture", "without regions")
    return contact_sheet(dict(zip(titles, (hard, soft, picture, without))), 192)


class Details(Studio):
    """The workflow detail: its first picture, and pieces of that which are drawn again."""

    def __init__(self, server: ComfyServer):
        super().__init__(server, "detail")
        crop, sampler = self.ids("Parts2WholeCropForDetail")[0], self.ids("KSampler")[-1]
        self.model, self.image = (self.nodes[crop]["inputs"][name] for name in ("model", "image"))
        self.sampler, self.vae = self.nodes[sampler]["inputs"], self.nodes[self.ids("VAEEncode")[0]]["inputs"]["vae"]

    def crop(self, x: int, y: int, width: int, height: int, padding: float) -> str:
        place = {"x": x, "y": y, "width": width, "height": height, "factor": FACTOR, "padding": padding}
        return self.add("Parts2WholeCropForDetail", model=self.model, image=self.image, **place)

    def again(self, model: Link, pixels: Link) -> Link:
        latent = [self.add("VAEEncode", pixels=pixels, vae=self.vae), 0]
        sampler = self.add("KSampler", **self.sampler | AGAIN | {"model": model, "latent_image": latent})
        return [self.add("VAEDecode", samples=[sampler, 0], vae=self.vae), 0]

    def paste(self, image: Link, crop: str, model: Link) -> Link:
        """The crop, drawn again with this MODEL, in its place."""
        detail = self.again(model, [crop, 1])
        return [self.add("Parts2WholePasteDetail", image=image, detail=detail, crop=[crop, 3], feather=24), 0]


def detail(server: ComfyServer) -> Image.Image:
    details = Details(server)
    x, y, width, height = BOX
    crop = details.crop(*BOX, padding=0)
    (pose,) = details.ids("LoadImage")
    redrawn = [details.again(model, [crop, 1]) for model in (details.model, [crop, 0])]
    picture, pose, by_pose, by_piece = details.shown(details.image, [pose, 0], *redrawn)
    piece = (pose := coloured(pose)).crop((x, y, x + width, y + height))
    for each in (picture, pose):
        ImageDraw.Draw(each).rectangle((x, y, x + width - 1, y + height - 1), outline=MARK, width=3)
    titles = ("the picture", "its pose", "with the whole pose", "the pose, cut", "with its piece of the pose")
    return contact_sheet(dict(zip(titles, (picture, pose, by_pose, piece, by_piece))), SHOWN)


def detail_tiles(server: ComfyServer) -> Image.Image:
    details = Details(server)
    large = [details.add("ImageScaleBy", image=details.image, upscale_method="lanczos", scale_by=FACTOR), 0]
    whole, pieces = large, large
    for x, y in itertools.product((0, WIDTH // 2), (0, HEIGHT // 2)):
        crop = details.crop(x, y, WIDTH // 2, HEIGHT // 2, padding=0.1)
        whole, pieces = details.paste(whole, crop, details.model), details.paste(pieces, crop, [crop, 0])
    titles = ("twice as large", "four tiles, the whole pose in each", "four tiles, each with its piece")
    return contact_sheet(dict(zip(titles, details.shown(large, whole, pieces))), HEIGHT)


def marked(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """The picture, coloured where the mask is."""
    return Image.composite(Image.new("RGB", picture.size, MARK), picture, mask.point(lambda value: 0.65 * value))


def tinted(mask: Image.Image, colour: tuple[int, int, int]) -> Image.Image:
    """The mask in a dark shade of the colour."""
    return ImageOps.colorize(mask, "black", tuple(value // 2 for value in colour))


MADE = {made.__name__: made for made in (fit, parts_of_a_photo, refine_mask, pose_region, people, detail, detail_tiles)} | {
    "preview_parts": sheet("attribution", "Parts2WholePreviewParts"),
    "attribution": sheet("attribution", "Parts2WholeShowAttribution"),
    "outfit_grid": sheet("outfit_grid", "Parts2WholeOutfitSheet"),
}


def main():
    unknown = {*sys.argv[1:]} - {*MADE}
    if unknown:
        sys.exit(f"No picture {', '.join(sorted(unknown))}. There are {', '.join(MADE)}.")
    with tempfile.TemporaryDirectory() as folder, ComfyServer(Path(folder)) as server:
        for name in sys.argv[1:] or MADE:
            print(f"Making {name} ...", flush=True)
            MADE[name](server).convert("RGB").save(ROOT / "web" / "docs" / f"{name}.png", optimize=True)


if __name__ == "__main__":
    main()
