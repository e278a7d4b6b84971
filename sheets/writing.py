"""What sheets write: labels in a font that has their glyphs, wrapped and shortened; where there is none, a number instead."""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Iterable
from typing import NamedTuple

from PIL import ImageFont

FONT_SIZE = 14
LONGEST_LINE, MOST_LINES = 320, 3  # pixels
LONGEST_NOTE = 1000  # characters
# Pillow's own font has ASCII. These are common ones of Linux, Windows and macOS, where Pillow finds them by name.
FONTS = (
    "DejaVuSans.ttf", "NotoSans-Regular.ttf", "FreeSans.ttf", "segoeui.ttf", "arial.ttf", "Arial Unicode.ttf",
    "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf",
    "msyh.ttc", "msgothic.ttc", "malgun.ttf", "PingFang.ttc", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc",
    "NotoSansArabic-Regular.ttf", "NotoNaskhArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf", "NotoSansDevanagari-Regular.ttf",
    "NotoSansThai-Regular.ttf", "Nirmala.ttf", "LeelawUI.ttf", "Symbola.ttf", "Symbola_hint.ttf", "seguisym.ttf", "seguiemj.ttf",
)


class Caption(NamedTuple):
    """How a label is written on a sheet.

    note: the whole label, for the node's text, where the sheet does not show it all; else empty
    """

    lines: tuple[str, ...]
    font: ImageFont.FreeTypeFont
    note: str = ""

    @property
    def width(self) -> int:
        """In pixels."""
        return 1 + max(round(self.font.getlength(line)) for line in self.lines)


def plain_font() -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(FONT_SIZE)


def captions(labels: Iterable[str]) -> dict[str, Caption]:
    """For each label how it is written. A label that no font has becomes the number of its part, counted from 1."""
    made = {}
    for number, label in enumerate(labels, 1):
        if label not in made:
            made[label] = _caption(label, number)
    return made


def notes(labels: Iterable[str]) -> str:
    """A line for each label that is not written, or not to its end."""
    return "\n".join(caption.note for caption in captions(labels).values() if caption.note)


def _caption(label: str, number: int) -> Caption:
    text = " ".join("".join(_shown(character) for character in label).split())
    note = f"part {number}: {text if len(text) <= LONGEST_NOTE else text[:LONGEST_NOTE] + '…'}"
    font = next((font for font in (plain_font(), *_system_fonts()) if _has_glyphs(font, text)), None) if text else None
    if font is None:
        return Caption((f"part {number}",), plain_font(), note)
    lines = _wrapped(text, font)
    return Caption(lines, font, "" if "".join(lines).replace(" ", "") == text.replace(" ", "") else note)


def _shown(character: str) -> str:
    """The character; a space for a line break, nothing for what has no glyph of its own."""
    if character in "\u200c\u200d":  # they join letters, or keep them apart
        return character
    category = unicodedata.category(character)
    if category == "Cs":  # half of a character
        return "\ufffd"
    if category == "Cf" or "\ufe00" <= character <= "\ufe0f":
        return ""
    return " " if category == "Cc" else character


@functools.cache
def _system_fonts() -> tuple[ImageFont.FreeTypeFont, ...]:
    found = []
    for name in FONTS:
        try:
            found.append(ImageFont.truetype(name, FONT_SIZE))
        except OSError:  # this system has no such font
            continue
    return tuple(found)


def _has_glyphs(font: ImageFont.FreeTypeFont, text: str) -> bool:
    def drawn(character: str) -> tuple:
        mask = font.getmask(character)
        return mask.size, bytes(mask)

    letters = set(text) - set(" \u200c\u200d")
    # Pillow can write from right to left and put marks on letters only by Raqm.
    shaped = any(unicodedata.bidirectional(letter) in ("R", "AL") or unicodedata.category(letter)[0] == "M" for letter in text)
    if shaped and font.layout_engine != ImageFont.Layout.RAQM:
        return False
    missing = drawn("\U0010ffff")
    return all(drawn(letter) != missing for letter in letters)


def _wrapped(text: str, font: ImageFont.FreeTypeFont) -> tuple[str, ...]:
    """Broken between words, or within one that is longer than a line. What is too long ends in an ellipsis."""

    def fits(line: str) -> bool:
        return round(font.getlength(line)) <= LONGEST_LINE

    given = text[:LONGEST_LINE * MOST_LINES]  # no letter is narrower than a pixel
    lines = [""]
    for word in given.split(" "):
        if fits(f"{lines[-1]} {word}"):
            lines[-1] = f"{lines[-1]} {word}".lstrip()
            continue
        lines.append("")
        for character in word:
            if lines[-1] and not fits(lines[-1] + character):
                lines.append("")
            lines[-1] += character
        if len(lines) > MOST_LINES + 1:
            break
    lines = [line for line in lines if line]
    if len(lines) > MOST_LINES or len(given) < len(text):
        lines = lines[:MOST_LINES]
        while not fits(lines[-1] + "..."):
            lines[-1] = lines[-1][:-1]
        lines[-1] = lines[-1].rstrip() + "..."
    return tuple(lines)
