"""How labels of every script and length are written."""

from pathlib import Path

import matplotlib
import pytest
from parts2whole.sheets import writing
from parts2whole.sheets.sheet import LINE, PAPER, written
from parts2whole.sheets.writing import LONGEST_LINE, MOST_LINES, captions, notes, plain_font
from PIL import ImageFont

CHINESE, ARABIC, CYRILLIC, EMOJI, ACCENTS = "红色毛衣", "سترة حمراء", "красный свитер", "red sweater 🧶", "été, œuvre"
LONG = "A red knitted cable sweater with long sleeves, ribbed cuffs and hem, worn by a woman with long brown hair, " * 3


@pytest.fixture
def fonts(tmp_path, monkeypatch):
    """A function that says which font files the system has."""
    monkeypatch.setenv("XDG_DATA_DIRS", str(tmp_path / "none"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    writing._system_fonts.cache_clear()

    def install(*files):
        (tmp_path / "fonts").mkdir()
        for file in files:
            (tmp_path / "fonts" / Path(file).name).symlink_to(file)

    yield install
    writing._system_fonts.cache_clear()


DEJAVU = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def boxes(caption):
    """Letters of a caption that its font has not."""
    box = bytes(caption.font.getmask("\U0010ffff"))
    return [letter for letter in "".join(caption.lines) if letter != " " and bytes(caption.font.getmask(letter)) == box]


@pytest.mark.parametrize(
    "label", [CHINESE, ARABIC, CYRILLIC, EMOJI, ACCENTS, "e\u0301te\u0301", "\u200e", "\ud83d", "\ue000"], ids=ascii
)
def test_without_a_font_a_number_stands_for_the_part_and_the_node_says_the_label(fonts, label):
    made = captions(["face", label, "shoes", label])
    assert made[label].lines == ("part 2",) and not boxes(made[label])
    assert notes(["face", label, "shoes", label]).startswith("part 2: ") and notes(["face", label]).count("\n") == 0
    shown = label.replace("\u200e", "").replace("\ud83d", "\ufffd")
    assert shown in notes(["face", label])


@pytest.mark.parametrize("label", [ARABIC, CYRILLIC, ACCENTS])
def test_a_font_of_the_system_that_has_the_letters_is_used(fonts, label):
    fonts(DEJAVU)
    made = captions([label])[label]
    assert made.font.getname()[0] == "DejaVu Sans" and made.lines == (label,) and made.note == "" and not boxes(made)


def test_letters_that_no_font_has_become_a_number(fonts):
    fonts(DEJAVU)
    assert captions([CHINESE])[CHINESE].lines == captions([EMOJI])[EMOJI].lines == ("part 1",)


def test_ordinary_labels_are_written_in_pillows_own_font(fonts):
    fonts(DEJAVU)
    made = captions(["upper body clothes"])["upper body clothes"]
    assert made.lines == ("upper body clothes",) and made.font.getname() == plain_font().getname() and made.note == ""


@pytest.mark.parametrize(
    "label", [LONG, "x" * 4096, "i" * 4096, "W" * 500, "a " * 2000, "an" + "\u0301" * 4000], ids=lambda label: label[:3]
)
def test_what_is_long_is_wrapped_and_shortened(fonts, label):
    fonts(DEJAVU)
    made = captions(["face", label])[label]
    assert 1 <= len(made.lines) <= MOST_LINES and made.width <= LONGEST_LINE + 1
    assert made.lines[-1].endswith("...") and made.note.startswith(f"part 2: {label[:20].rstrip()}") and len(made.note) < 1100


def test_words_are_kept_whole(fonts):
    label = "The image shows a woman wearing a red knitted sweater.\r\nShe has long brown\thair."
    made = captions([label])[label]
    assert len(made.lines) == 2 and " ".join(made.lines).split() == label.split() and made.note == ""


@pytest.mark.parametrize(
    "label", ["red\r\nsweater", "red\nsweater", " red \u200b sweater\ufe0f", "red\x00sweater", "red\u2028sweater"]
)
def test_line_breaks_and_what_is_not_seen_become_a_space(fonts, label):
    assert captions([label])[label].lines == ("red sweater",)


@pytest.mark.parametrize("label", ["face", LONG, CYRILLIC])
def test_all_that_is_written_lies_on_its_paper(fonts, label):
    fonts(DEJAVU)
    caption = captions([label])[label]
    for options in ({}, {"indent": LINE}, {"centred": True}):
        paper = written(caption, **options)
        larger = written(caption, width=paper.width + 100, lines=len(caption.lines) + 1, **options)
        assert paper.height == LINE * len(caption.lines) and larger.size == (paper.width + 100, paper.height + LINE)
        count = [sum(pixel != PAPER for pixel in image.get_flattened_data()) for image in (paper, larger)]
        assert count[0] == count[1] > 20


def test_the_font_pillow_brings_has_ascii():
    assert isinstance(plain_font(), ImageFont.FreeTypeFont)
    text = "".join(map(chr, range(33, 127)))
    assert captions([text])[text].font.getname() == plain_font().getname()
