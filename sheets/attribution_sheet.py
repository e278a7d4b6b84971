"""Pictures of an attribution: which part each token of the result attended to, and how that went over the steps."""

from __future__ import annotations

import colorsys

import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image, ImageDraw

from ..attention.patch.attribution import Attribution
from .sheet import GAP, INK, LINE, PAPER, as_given, in_a_column, in_a_row, require_room, scaled, to_tensor, written
from .writing import FONT_SIZE, Caption, captions, plain_font

TILE, BARS = 256, 96


def colours(count: int) -> list[tuple[int, int, int]]:
    """Distinct colours, one for each reference."""
    return [tuple(round(255 * c) for c in colorsys.hsv_to_rgb(i / max(count, 1), 0.75, 0.9)) for i in range(count)]


def attribution_sheet(attribution: Attribution, maps: torch.Tensor, image: torch.Tensor | None) -> torch.Tensor:
    """One row for each latent: the strongest part at each token, then a heat map for each part. Below, the shares by step.

    maps: [B, N, h, w] from Attribution.maps
    image: [B', H, W, 3] in 0..1, the decoded result to draw over, or None
    returns: [1, H, W, 3] in 0..1
    raises: ValueError where the sheet is too large to be shown
    """
    names = attribution.names[1:-1]
    titles = captions(names)
    lines = max(len(title.lines) for title in titles.values())
    palette = colours(len(names))
    rows = []
    for i, shares in enumerate(maps):
        parts = shares[1:-1]
        behind = None if image is None else rearrange(image[i % len(image), ..., :3], "h w c -> c h w")
        strongest = parts / parts.amax((1, 2), keepdim=True).clamp_min(1e-9)
        best = rearrange(F.one_hot(strongest.argmax(0), len(names)), "h w n -> n h w")
        painted = torch.einsum("nhw,nc->chw", best * strongest, torch.tensor(palette) / 255.0)
        strongest_title = written(Caption(("strongest part",), plain_font()), lines=lines, indent=LINE)
        tiles = [_tile(strongest_title, _over(behind, painted, (best * strongest).sum(0)), INK, "")]
        for name, colour, share, relative in zip(names, palette, parts, strongest):
            painted = relative * torch.tensor(colour)[:, None, None] / 255.0
            text = f"{100 * share.mean():.1f}% of all, up to {100 * share.max():.0f}%"
            tiles.append(_tile(written(titles[name], lines=lines, indent=LINE), _over(behind, painted, relative), colour, text))
        rows.append(in_a_row(tiles))
        require_room(rows[0].width * rows[0].height * len(maps), "The sheet of Show Attribution", "sample fewer latents at once")
    width = max(row.width for row in rows) + 2 * GAP
    height = sum(row.height + GAP for row in rows)
    sheet = Image.new("RGB", (width, height + BARS + LINE + 2 * GAP), PAPER)
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height + GAP
    _draw_steps(sheet, top, attribution, palette)
    return to_tensor(sheet)


def _over(behind: torch.Tensor | None, painted: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """painted: [3, h, w], already multiplied by alpha [h, w]; over a pale picture, or over grey. [3, H, W]"""
    size = behind.shape[1:] if behind is not None else tuple(8 * side for side in painted.shape[1:])
    painted, alpha = (F.interpolate(x[None], size=size, mode="bilinear")[0] for x in (painted, alpha[None]))
    behind = torch.full_like(painted, 0.85) if behind is None else 0.6 * behind.mean(0, keepdim=True).cpu() + 0.3
    return behind * (1 - 0.85 * alpha) + painted * 0.85


def _tile(title: Image.Image, picture: torch.Tensor, colour: tuple[int, int, int], text: str) -> Image.Image:
    ImageDraw.Draw(title).rectangle((0, 3, FONT_SIZE - 2, FONT_SIZE + 1), colour)
    image = scaled(as_given(rearrange(picture, "c h w -> h w c")), TILE)
    return in_a_column([title, image, written(Caption((text,), plain_font()), image.width + 1)])


def _draw_steps(sheet: Image.Image, top: int, attribution: Attribution, palette: list[tuple[int, int, int]]):
    """A stacked bar of the parts' shares for each step, from the first on the left."""
    draw = ImageDraw.Draw(sheet)
    steps = list(attribution.by_step.values())
    most = max(float(shares[1:-1].sum()) for shares in steps)
    draw.text((GAP, top), f"shares of the parts by step, up to {100 * most:.0f}%", INK, plain_font())
    most = max(most, 1e-9)
    width = (sheet.width - 2 * GAP) / len(steps)
    for i, shares in enumerate(steps):
        bottom = float(top + LINE + BARS)
        for share, colour in zip(shares[1:-1].tolist(), palette):
            height = share / most * BARS
            box = (GAP + i * width, bottom - height, GAP + (i + 1) * width - max(1, width * 0.1), bottom)
            draw.rectangle([round(side) for side in box], colour)
            bottom -= height
