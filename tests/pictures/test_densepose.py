"""From a photograph to raw IUV: by small TorchScript models that give drawn maps, so that the picture is known to the pixel."""


import comfy.model_management
import comfy.utils
import pytest
import torch
import torch.nn.functional as F
from harness.densepose_models import HEAD, LEG, MARGIN, SIDE, TORSO, drawn, photo, pose, save_model, save_module
from harness.memory import MIB, most_memory
from parts2whole.pictures.densepose_maps import find_people, iuv_of

each_convention = pytest.mark.parametrize("convention", ["tuple", "dictionary"])


def figure():
    """The drawn person in the size of its maps, as it must be: written down, not computed as the pack does."""
    expected = torch.zeros(SIDE, SIDE, 3, dtype=torch.int32)
    for y in range(MARGIN, SIDE - MARGIN):
        for x in range(MARGIN, SIDE - MARGIN):
            u, v = (y + 0.5) / SIDE, 1 - (x + 0.5) / SIDE
            part = HEAD if y < SIDE // 4 else TORSO if y < SIDE // 2 else LEG
            if part != HEAD or SIDE * 3 // 8 <= x < SIDE * 5 // 8:
                expected[y, x] = torch.tensor([int(v * 255), int(u * 255), part])
    return expected


def plain(maps, box, height, width):
    """The standard way, all channels at once: the box in whole pixels, and what of it lies in the picture."""
    coarse, fine, u, v = maps
    x, y = int(box[0] // 1), int(box[1] // 1)
    size = int(box[3] - box[1]), int(box[2] - box[0])
    coarse, fine, u, v = (F.interpolate(each, size, mode="bilinear", align_corners=False)[0] for each in (coarse, fine, u, v))
    part = fine.argmax(0) * (coarse.argmax(0) > 0)
    u, v = (each.gather(0, part[None])[0].clamp(0, 1) * (part > 0) for each in (u, v))
    border = 1100
    large = torch.zeros(height + 2 * border, width + 2 * border, 3, dtype=torch.int32)
    whole = torch.stack([(v * 255).int(), (u * 255).int(), part.int()], -1)
    large[border + y:border + y + size[0], border + x:border + x + size[1]] = whole
    return large[border:-border, border:-border]


@each_convention
def test_the_picture_is_known_to_the_pixel(convention, tmp_path):
    """The box as large as the maps: nothing is resized. Red falls from left to right, green grows downwards."""
    path = save_model(tmp_path / "a.torchscript", convention, [[100, 30, 100 + SIDE, 30 + SIDE]])
    found = pose(path, photo(512, 640))[0]
    expected = torch.zeros(512, 640, 3, dtype=torch.int32)
    expected[30:30 + SIDE, 100:100 + SIDE] = figure()
    assert torch.equal(found, expected)


@pytest.mark.parametrize("height, width", [(451, 301), (97, 640), (551, 750), (33, 33)])
@pytest.mark.parametrize("box", [(5, 3, 30, 31), (-7.6, -9.2, 20.1, 40.9), (10.3, 12.7, 70.9, 50.2)], ids=str)
@each_convention
def test_odd_sizes_and_boxes_over_the_border(convention, height, width, box, tmp_path):
    """A model of the first kind sees the photograph with its shorter side at 512: its boxes are in pixels of that."""
    scale = min(512 / min(height, width), 2048 / max(height, width)) if convention == "tuple" else 1.0
    seen = [round(width * scale) / width, round(height * scale) / height] * 2
    path = save_model(tmp_path / "a.pt", convention, [[edge * factor for edge, factor in zip(box, seen)]])
    assert torch.equal(pose(path, photo(height, width))[0], plain(drawn(), box, height, width))


@each_convention
def test_several_people_the_largest_first(convention, tmp_path):
    """The middle one has the largest box, but shows less of it than the last one."""
    boxes = [[10, 10, 10 + SIDE, 10 + SIDE], [300, -100, 700, 150], [200, 200, 330, 500]]
    path = save_model(tmp_path / "a.pt", convention, boxes)
    image = photo(512, 512)
    order = [2, 1, 0]
    people = [pose(path, image, person)[0] for person in range(3)]
    for found, number in zip(people, order):
        assert torch.equal(found, plain(drawn(), boxes[number], 512, 512))
    with pytest.raises(ValueError, match="finds 3 people, and `person` is 3. 0 is the largest, 2 the smallest"):
        pose(path, image, 3)


@each_convention
def test_a_batch_gives_a_batch_and_nobody_is_said(convention, tmp_path):
    path = save_model(tmp_path / "a.pt", convention, [[10, 20, 150, 300]])
    images = photo(512, 256, pictures=2)
    both = pose(path, images)
    assert torch.equal(both[1], pose(path, images[1:])[0]) and both[0].any()
    with pytest.raises(ValueError, match="^The DensePose model finds no person"):
        pose(path, torch.zeros(1, 64, 64, 3))
    images[1] = 0
    with pytest.raises(ValueError, match="^Picture 2 of 2: The DensePose model finds no person"):
        pose(path, images)


@each_convention
def test_the_order_of_colours_and_an_alpha_channel(convention, tmp_path):
    """RGB for the first kind, as the preprocessors give it; BGR for the second."""
    path = save_model(tmp_path / "a.pt", convention, [[0, 0, SIDE, SIDE]], shows_colours=True)
    image = torch.tensor([0.8, 0.4, 0.2, 0.1]).expand(1, 512, 512, 4)
    found = pose(path, image)[0, 20, 20]
    assert found.tolist() == [51, 204, TORSO], "U, in green, is the mean of red, and V, in red, that of blue"


@each_convention
def test_u_and_v_swapped_and_in_half_precision(convention, tmp_path):
    boxes = [[0, 0, 64, 100]]
    image = photo(128, 128)
    found = pose(save_model(tmp_path / "a.pt", convention, boxes), image)
    assert torch.equal(pose(tmp_path / "a.pt", image, swap_uv=True), found[..., [1, 0, 2]])
    half = pose(save_model(tmp_path / "half.pt", convention, boxes, half=True), image)
    assert torch.equal(half[..., 2], found[..., 2]) and (half - found).abs().max() <= 1


def test_a_coarse_map_of_fifteen_parts(tmp_path):
    path = save_model(tmp_path / "a.pt", "dictionary", [[3, 4, 3 + SIDE, 4 + SIDE]], drawn(coarse_channels=15))
    assert torch.equal(pose(path, photo(80, 80))[0, 4:4 + SIDE, 3:3 + SIDE], figure())


def test_the_same_bytes_every_time(tmp_path):
    """TorchScript optimizes a module at its second and third call."""
    path = save_model(tmp_path / "a.pt", "tuple", [[3.3, 4.4, 200.1, 300.7]])
    image = photo(300, 200)
    many = pose(path, image.expand(4, -1, -1, -1))
    assert all(torch.equal(each, many[0]) for each in many)


def test_a_large_photograph_costs_a_few_maps_of_memory(tmp_path):
    people = find_people((torch.tensor([[0.0, 0.0, 1000.0, 1500.0]]), *drawn()))
    assert most_memory(lambda: iuv_of(people, 0, 1500, 1000)) < 140 * MIB, "25 channels at once are 143 MiB, three times"


@pytest.mark.parametrize("maps, message", [
    (lambda c, f, u, v: (c, f, u, v[:, :24]), r"\[1, 24, 56, 56\].* Expected those of a DensePose chart model"),
    (lambda c, f, u, v: (c, f[..., :0], u, v), r"\[1, 25, 56, 0\].* Expected those of a DensePose chart model"),
    (lambda c, f, u, v: (c[:, :1], f, u, v), "Expected those of a DensePose chart model"),
    (lambda c, f, u, v: (c, f[:, :, 0], u, v), r"\[1, 25, 56\]"),
    (lambda c, f, u, v: (c, f, u * torch.nan, v), "NaN or infinite values. Take its export in full precision"),
    (lambda c, f, u, v: (c.flip(1), f * 0, u, v), "no body in the box of person 0"),
])
@each_convention
def test_tensors_that_do_not_fit(convention, maps, message, tmp_path):
    path = save_model(tmp_path / "a.pt", convention, [[0, 0, 20, 20]], maps(*drawn()))
    with pytest.raises(ValueError, match=message):
        pose(path, photo(64, 64))


def test_tensors_are_told_by_shape_and_name():
    boxes, (coarse, fine, u, v) = torch.tensor([[1.0, 2, 3, 4]]), drawn()
    for output in (
        (fine, u, v, coarse, boxes), [boxes, coarse, fine, u, v, torch.ones(1)],
        {"v": v, "u": u, "fine": fine, "coarse": coarse, "boxes": boxes},
        {"a": fine, "b": u, "c": v, "d": coarse, "e": boxes, "image_size": torch.ones(2)},
    ):
        assert all(torch.equal(a, b) for a, b in zip(find_people(output), (boxes, coarse, fine, u, v), strict=True))
    maps = coarse, fine, u, v
    for output in (None, (), boxes, (boxes, boxes, *maps), (boxes, *maps, v), (boxes.repeat(2, 1), *maps)):
        with pytest.raises(ValueError, match="^The model gives .* Expected those of a DensePose chart model"):
            find_people(output)


def test_a_box_of_another_world(tmp_path):
    path = save_model(tmp_path / "a.pt", "dictionary", [[0, 0, 1e6, 1e6]])
    with pytest.raises(ValueError, match="a box of 1000000x1000000 pixels for a picture of 64x64"):
        pose(path, photo(64, 64))


class Another(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


class TakesTwo(torch.nn.Module):
    def forward(self, image: torch.Tensor, size: int) -> dict[str, torch.Tensor]:
        return {"a": image + size}


class Fails(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": image.reshape(7, -1)}


class Refuses(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        assert image.dim() == 7, "seven dimensions"
        return {"a": image}


class TakesAll(torch.nn.Module):
    """Of the memory that there is."""

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": torch.zeros(1 << 50)}


class Nothing(torch.nn.Module):
    pass


@pytest.mark.parametrize("module, message", [
    (Another, "is not a DensePose model: it is called as forward"), (TakesTwo, "int size.* -> .*Expected one picture"),
    (Refuses, "failed on a picture of 32x32: .*seven dimensions.*download it again"),
    (Fails, "failed on a picture of 32x32: .*shape '\\[7, -1\\]' is invalid.*download it again"), (Nothing, "called as nothing"),
])
def test_other_modules_are_refused(module, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pose(save_module(module(), tmp_path / "a.pt"), photo(32, 32))


def test_a_lack_of_memory_is_the_hosts_to_mend(tmp_path):
    """Not the file's fault."""
    with pytest.raises(torch.OutOfMemoryError, match="model on a picture of 32x32: .*can't allocate memory"):
        pose(save_module(TakesAll(), tmp_path / "a.pt"), photo(32, 32))


def test_the_host_loads_it_and_it_shows_its_progress_and_can_be_interrupted_between_pictures(tmp_path):
    path, seen = save_model(tmp_path / "a.pt", "dictionary", [[0, 0, 20, 20]]), []

    def hook(value, total, preview, **_):
        loaded = [each.model.model for each in comfy.model_management.current_loaded_models if each.model is not None]
        seen.append((value, total))
        assert any(isinstance(each, torch.jit.ScriptModule) for model in loaded for each in model.children())
        if interrupt and value > 1:
            comfy.model_management.interrupt_current_processing()

    comfy.utils.set_progress_bar_global_hook(hook)
    try:
        interrupt = False
        pose(path, photo(32, 32, pictures=2))
        assert seen[0] == (1, 3) and seen[-1] == (3, 3)
        interrupt = True
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            pose(path, photo(32, 32).expand(2000, -1, -1, -1))
        assert 1 < seen[-1][0] < 2000, "in the middle"
    finally:
        comfy.utils.set_progress_bar_global_hook(None)
        comfy.model_management.interrupt_current_processing(False)
