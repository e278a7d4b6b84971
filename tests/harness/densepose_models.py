"""DensePose models that return drawn maps, whatever the picture: TorchScript files of both conventions."""

from __future__ import annotations

from pathlib import Path

import torch

# Of a drawn person, from above to below, each with its own direction of U and V.
HEAD, TORSO, LEG = 23, 2, 9
MARGIN = 8  # pixels of no body around it, in a map
SIDE = 56


def drawn(people: int = 1, side: int = SIDE, coarse_channels: int = 2) -> tuple[torch.Tensor, ...]:
    """coarse [N, 2 or 15, side, side], fine, u and v [N, 25, side, side] of a head on a torso above a leg. The head is in the upper
    quarter, and a quarter wide. U grows downwards, V falls to the right; channels of other parts hold other values."""
    body = torch.zeros(side, side)
    body[MARGIN:-MARGIN, MARGIN:-MARGIN] = 1
    body[:side // 4, :side * 3 // 8], body[:side // 4, side * 5 // 8:] = 0, 0
    coarse, fine = torch.zeros(coarse_channels, side, side), torch.zeros(25, side, side)
    coarse[0], coarse[-1] = 1 - body, body
    fine[HEAD, :side // 4], fine[TORSO, side // 4:side // 2], fine[LEG, side // 2:] = 5, 5, 5
    u, v = torch.full((25, side, side), 0.9), torch.full((25, side, side), 0.9)
    along = (torch.arange(side) + 0.5) / side
    for part in (HEAD, TORSO, LEG):
        u[part], v[part] = along[:, None], 1 - along
    return tuple(each.expand(people, -1, -1, -1).contiguous() for each in (coarse, fine, u, v))


class GivesTuple(torch.nn.Module):
    """Takes [3, H, W] in 0..255, RGB.

    shows_colours: U and V are the picture's mean red and blue, so that the order of its colours is seen
    half: gives its maps in half precision
    """

    def __init__(self, boxes: torch.Tensor, maps: tuple[torch.Tensor, ...], shows_colours: bool = False, half: bool = False):
        super().__init__()
        self.shows_colours, self.half_maps = shows_colours, half
        for name, tensor in zip(("boxes", "coarse", "fine", "u", "v"), (boxes, *maps)):
            self.register_buffer(name, tensor)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        assert image.dtype == torch.uint8 and image.dim() == 3 and image.size(0) == 3
        assert image.size(1) % 64 == 0 and image.size(2) % 64 == 0
        found, u, v = self.boxes.size(0), self.u, self.v
        if image.float().mean() < 8:
            found = 0
        if self.shows_colours:
            u, v = torch.zeros_like(u) + image[0].float().mean() / 255, torch.zeros_like(v) + image[2].float().mean() / 255
        if self.half_maps:
            u, v = u.half(), v.half()
        return self.boxes[:found], self.coarse[:found], self.fine[:found], u[:found], v[:found]


class GivesDictionary(torch.nn.Module):
    """Takes [H, W, 3] in 0..255, BGR."""

    def __init__(self, boxes: torch.Tensor, maps: tuple[torch.Tensor, ...], shows_colours: bool = False, half: bool = False):
        super().__init__()
        self.shows_colours, self.half_maps = shows_colours, half
        for name, tensor in zip(("boxes", "coarse", "fine", "u", "v"), (boxes, *maps)):
            self.register_buffer(name, tensor)

    def forward(self, original_image: torch.Tensor, bgr: bool = True) -> dict[str, torch.Tensor]:
        assert original_image.dtype == torch.uint8 and original_image.dim() == 3 and original_image.size(2) == 3 and bgr
        found, u, v = self.boxes.size(0), self.u, self.v
        if original_image.float().mean() < 8:
            found = 0
        if self.shows_colours:
            u = torch.zeros_like(u) + original_image[:, :, 2].float().mean() / 255
            v = torch.zeros_like(v) + original_image[:, :, 0].float().mean() / 255
        if self.half_maps:
            u, v = u.half(), v.half()
        return {
            "image_size": torch.tensor([original_image.size(0), original_image.size(1)]), "pred_boxes": self.boxes[:found],
            "scores": torch.ones(found), "pred_classes": torch.zeros(found), "pred_densepose_coarse_segm": self.coarse[:found],
            "pred_densepose_v": v[:found], "pred_densepose_u": u[:found], "pred_densepose_fine_segm": self.fine[:found],
        }


CONVENTIONS = {"tuple": GivesTuple, "dictionary": GivesDictionary}


def save_module(module: torch.nn.Module, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with torch.inference_mode(False):
        torch.jit.script(module).save(str(path))
    return path


def save_model(path: Path, convention: str, boxes: list, maps=None, **options) -> Path:
    """boxes: x0 y0 x1 y1 of each person, in pixels of the picture that the model gets"""
    with torch.inference_mode(False):
        boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
        maps = drawn(len(boxes)) if maps is None else maps
        maps = tuple(each.clone() for each in maps)
        return save_module(CONVENTIONS[convention](boxes, maps, **options), path)


def photo(height, width, pictures=1):
    """[B, H, W, 3] in 0.2..1"""
    return 0.2 + 0.8 * torch.rand(pictures, height, width, 3, generator=torch.Generator().manual_seed(0))


def values(iuv):
    """Whole numbers 0..255, and that they are."""
    assert torch.allclose((iuv * 255).round() / 255, iuv, atol=1e-7)
    return (iuv * 255).round().int()


def pose(path, image, person=0, swap_uv=False):
    """[B, H, W, 3], 0..255. Checks the body too."""
    from parts2whole.pictures.densepose import pose_of_photo

    iuv, body = pose_of_photo(image, str(path), person, swap_uv)
    assert iuv.shape == (*image.shape[:3], 3) and body.shape == image.shape[:3]
    assert torch.equal(body, (iuv[..., 2] > 0).float())
    return values(iuv)
