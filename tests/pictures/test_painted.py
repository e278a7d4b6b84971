"""A cut-out that was opened in the mask editor comes with its outside painted: only what was painted inside is the part."""

import os
import shutil

import numpy as np
import pytest
import torch
from harness.pictures import save
from harness.workbench import run
from PIL import Image

HEIGHT, WIDTH = 24, 32
STROKE = (slice(8, 12), slice(10, 20))


@pytest.fixture(autouse=True)
def input_folder(folders):
    before = set((folders / "input").iterdir())
    yield folders / "input"
    for path in set((folders / "input").iterdir()) - before:
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def cut_out(seed=0) -> np.ndarray:
    """A disc with a soft edge in a picture that keeps its colours under the transparency."""
    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 4), dtype=np.uint8)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pixels[..., 3] = (np.clip(10.5 - np.hypot(y - 12, x - 16), 0, 1) * 255).round()
    return pixels


def as_the_editor_saves(opened: np.ndarray, stroke=None, cleared=False, name="clipspace-painted-masked-1.png") -> str:
    """tests/editor has it do so: it opens what is transparent as painted, and saves what is painted as transparent."""
    painted = np.zeros_like(opened[..., 3]) if cleared else 255 - opened[..., 3]
    if stroke is not None:
        painted[stroke] = 255
    return save(Image.fromarray(np.dstack([opened[..., :3], 255 - painted])), name)


def load(name, **options):
    return run("Parts2WholeLoadPart", image=name, **{"label": "face", **options})


def test_strokes_on_a_cut_out_are_the_part(input_folder):
    save(Image.fromarray(cut_out(1)), "another.png")
    save(Image.fromarray(cut_out()), "shirt.png")
    part = load(as_the_editor_saves(cut_out(), STROKE))
    expected = torch.zeros(1, HEIGHT, WIDTH)
    expected[(0, *STROKE)] = torch.from_numpy(cut_out()[STROKE][..., 3] / 255.0).float()
    assert torch.allclose(part.mask, expected, atol=1 / 255)
    assert torch.equal(part.image[0], torch.from_numpy(cut_out() / np.float32(255))), "and its outside is still transparent"
    assert load("clipspace-painted-masked-1.png", mask_source="painted").mask.equal(part.mask)


def test_a_cut_out_on_which_nothing_was_painted_stays_what_it_is(input_folder):
    save(Image.fromarray(cut_out()), "shirt.webp", lossless=True, exact=True)
    part = load(as_the_editor_saves(cut_out()))
    assert part.mask is None and torch.equal(part.image[0], torch.from_numpy(cut_out() / np.float32(255)))


def test_a_soft_stroke_and_the_soft_edge_are_kept(input_folder):
    save(Image.fromarray(cut_out()), "shirt.png")
    opened = cut_out()
    saved = opened.copy()
    saved[STROKE][..., 3] = saved[STROKE][..., 3] // 2
    part = load(save(Image.fromarray(saved), "clipspace-painted-masked-2.png"))
    expected = (opened[..., 3].astype(int) - saved[..., 3]) / 255
    assert torch.allclose(part.mask[0], torch.from_numpy(expected).float(), atol=1 / 255)


def test_after_clear_what_is_painted_is_the_part_also_on_a_cut_out(input_folder):
    save(Image.fromarray(cut_out()), "shirt.png")
    part = load(as_the_editor_saves(cut_out(), (slice(0, 6), slice(0, 6)), cleared=True))
    assert part.image.shape[-1] == 3 and part.mask[0, :6, :6].eq(1).all() and part.mask.sum() == 36


def test_a_painted_photograph_is_not_taken_for_a_cut_out_beside_it(input_folder):
    save(Image.fromarray(cut_out(1)), "shirt.png")
    save(Image.fromarray(cut_out()[..., :3]), "photograph.png")
    part = load(as_the_editor_saves(cut_out()))
    assert torch.allclose(part.mask[0], torch.from_numpy((255 - cut_out()[..., 3]) / np.float32(255)))


def test_where_the_cut_out_is_gone_a_large_share_is_warned_of(input_folder, caplog):
    part = load(as_the_editor_saves(cut_out()[:, :, :]))
    assert part.mask.mean() < 0.75 and not caplog.text
    small = cut_out()
    small[:, 16:, 3] = 0
    load(as_the_editor_saves(small, STROKE))
    assert "what was painted on 'clipspace-painted-masked-1.png' is 8" in caplog.text and "press Clear or Invert" in caplog.text


def test_what_is_no_picture_beside_it_is_passed_over(input_folder):
    (input_folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(40))
    save(Image.fromarray(cut_out()), "cut_short.png")
    (input_folder / "cut_short.png").write_bytes((input_folder / "cut_short.png").read_bytes()[:-200])
    (input_folder / "nowhere.png").symlink_to(input_folder / "gone.png")
    save(Image.fromarray(cut_out()[:12]), "half.png")
    save(Image.fromarray(cut_out()), "shirt.png")
    assert load(as_the_editor_saves(cut_out(), STROKE)).mask.mean() < 0.1


def test_a_cut_out_in_a_folder_is_found(input_folder):
    save(Image.fromarray(cut_out()), "pasted/image.png")
    assert load(as_the_editor_saves(cut_out(), STROKE)).mask.mean() < 0.1


def test_of_several_cut_outs_of_a_picture_it_is_the_one_that_was_opened(input_folder):
    """As of one photograph, whose colours are all under the transparency."""
    parts = {"disc.png": cut_out(), "larger.png": cut_out(), "strip.png": cut_out()}
    parts["larger.png"][:4, :, 3] = 255
    parts["strip.png"][..., 3] = 0
    parts["strip.png"][23:, ::8, 3] = 255
    for i, order in enumerate((list(parts), list(parts)[::-1])):
        for seconds, name in enumerate(order):
            save(Image.fromarray(parts[name]), name)
            os.utime(input_folder / name, (100 * seconds + i, 100 * seconds + i))
        for pixels in parts.values():
            strokes = np.ix_((8, 9, 23), range(10, 20))
            part = load(as_the_editor_saves(pixels, strokes))
            assert torch.equal(part.image[0], torch.from_numpy(pixels / np.float32(255))) and part.mask.mean() < 0.05
