"""A drawing of parts that go into one picture, for workflows whose model is not in this pack: outlines, and no invented result."""

from PIL import Image, ImageDraw, ImageFont

SIDE, TITLE, FINER = 640, 100, 3  # pixels; drawn FINER times as large and made smaller, so that lines are smooth
INK, PAPER = (45, 50, 58), (250, 250, 247)
SKIN, TOP, TROUSERS, SHOES = (244, 214, 190), (236, 122, 106), (98, 148, 205), (246, 190, 84)
TOP_OUTLINE = [
    (-30, -45), (-12, -45), (0, -36), (12, -45), (30, -45), (60, -10), (40, 8),
    (30, -4), (30, 50), (-30, 50), (-30, -4), (-40, 8), (-60, -10),
]
TROUSERS_OUTLINE = [(-30, -50), (30, -50), (36, 55), (8, 55), (0, -10), (-8, 55), (-36, 55)]


class Pen:
    """Draws shapes around a middle, in pixels of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw, x: float, y: float, size: float = 1):
        self.draw, self.x, self.y, self.size = draw, x, y, size

    def at(self, *points: tuple[float, float]) -> list[tuple[float, float]]:
        return [((self.x + x * self.size) * FINER, (self.y + y * self.size) * FINER) for x, y in points]

    def line(self, *points: tuple[float, float], width: float = 4, colour=INK):
        self.draw.line(self.at(*points), colour, round(width * FINER), "curve")

    def shape(self, points: list[tuple[float, float]], fill):
        self.draw.polygon(self.at(*points), fill)
        self.line(*points, points[0], points[1])

    def ellipse(self, left: float, top: float, right: float, bottom: float, fill):
        self.draw.ellipse([side for point in self.at((left, top), (right, bottom)) for side in point], fill, INK, 4 * FINER)

    def face(self):
        self.ellipse(-34, -42, 34, 42, SKIN)
        for x in (-14, 14):
            self.ellipse(x - 3, -10, x + 3, -4, INK)
        self.line((-12, 18), (0, 23), (12, 18), width=3)

    def top(self):
        self.shape(TOP_OUTLINE, TOP)

    def trousers(self):
        self.shape(TROUSERS_OUTLINE, TROUSERS)

    def shoes(self, apart: float = 30):
        for side in (-1, 1):
            self.shape([(side * (apart + x), y) for x, y in ((-12, -14), (6, -14), (8, 0), (26, 8), (26, 16), (-12, 16))], SHOES)

    def lens(self):
        self.ellipse(-74, -74, 74, 74, None)
        self.line((53, 53), (96, 96), width=14)

    def pose(self):
        self.ellipse(-12, -48, 12, -24, PAPER)
        for line in (((0, -24), (0, 12)), ((-32, -32), (0, -12), (32, 8)), ((-20, 50), (0, 12), (20, 50))):
            self.line(*line, width=5)


def person(draw: ImageDraw.ImageDraw, x: float, y: float, parts: tuple[str, ...]):
    """All parts where they belong; what no part gives is an outline without colour."""
    pen = Pen(draw, x, y)
    for side in (-1, 1):
        pen.line((side * 62, -62), (side * 84, 10), width=4)
        if "trousers" not in parts:
            pen.line((side * 20, 50), (side * 26, 176))
    if "shoes" not in parts:
        pen.line((-48, 192), (-22, 192), (-22, 176))
        pen.line((48, 192), (22, 192), (22, 176))
    if "shoes" in parts:
        Pen(draw, x, y + 186).shoes(22)
    if "trousers" in parts:
        Pen(draw, x, y + 110, 1.2).trousers()
    Pen(draw, x, y - 10, 1.25).top()
    Pen(draw, x, y - 118, 1.2).face()


def drawing(name: str, parts: tuple[str, ...], paper: tuple[int, int, int], again: bool = False) -> Image.Image:
    """Square.

    name: of the model, written below
    parts: shapes of Pen, one below the other at the left
    again: the face is drawn again, larger: a lens over it
    """
    image = Image.new("RGB", (SIDE * FINER, SIDE * FINER), paper)
    draw = ImageDraw.Draw(image)

    def card(*box: float):
        draw.rounded_rectangle([side * FINER for side in box], 18 * FINER, PAPER, INK, 4 * FINER)

    pitch = 500 / len(parts)
    side = min(150, pitch - 16)
    card(330, 40, 600, 540)
    for i, part in enumerate(parts):
        middle = 40 + pitch * (i + 0.5)
        card(40, middle - side / 2, 40 + side, middle + side / 2)
        getattr(Pen(draw, 40 + side / 2, middle, side / 150), part)()
        arrow = Pen(draw, 0, 0)
        end = 290 + (middle - 290) * 0.3
        arrow.line((side + 54, middle), (312, end), width=5)
        arrow.shape([(322, end), (302, end - 10), (302, end + 10)], INK)
    person(draw, 465, 300, parts)
    if again:
        Pen(draw, 465, 182).lens()
    return titled(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS), name)


def titled(thumbnail: Image.Image, title: str) -> Image.Image:
    """The thumbnail, with a title in its lowest TITLE pixels."""
    ImageDraw.Draw(thumbnail).text((SIDE / 2, SIDE - TITLE / 2), title, INK, ImageFont.load_default(46), anchor="mm")
    return thumbnail
