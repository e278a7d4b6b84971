"""From a photograph to six parts: by a small SegFormer with random weights, from its saved files, and by drawn label maps."""

import json

import pytest
import torch
from harness.workbench import run
from parts2whole.pictures.human_parsing import parse_photo
from parts2whole.pictures.label_maps import CLASSES, SCHEMES, parts_of, read_label_map
from parts2whole.pictures.part import LABELS
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """A parser of twelve channels, in a folder of its own."""
    folder = tmp_path_factory.mktemp("parsers") / "tiny"
    torch.manual_seed(0)
    config = SegformerConfig(
        num_labels=18, hidden_sizes=[12, 12, 12, 12], depths=[1, 1, 1, 1], num_attention_heads=[1, 1, 1, 1], decoder_hidden_size=12,
        id2label={str(i): name.title() for i, name in enumerate(SCHEMES["ATR"])},
    )
    with torch.inference_mode(False):
        SegformerForSemanticSegmentation(config).save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)
    return folder


@pytest.fixture
def in_models(parser, folders):
    import folder_paths

    folder = folders / "models" / "human_parsing"
    folder.mkdir(exist_ok=True)
    (folder / "tiny").symlink_to(parser)
    before = folder_paths.folder_names_and_paths["human_parsing"]
    folder_paths.folder_names_and_paths["human_parsing"] = ([str(folder)], set())
    yield
    folder_paths.folder_names_and_paths["human_parsing"] = before
    (folder / "tiny").unlink()


def test_the_numbers_are_those_of_the_model(parser):
    image = torch.rand(1, 50, 40, 3, generator=torch.Generator().manual_seed(1))
    found, scheme = parse_photo(image, str(parser))
    assert scheme == "ATR"
    model = SegformerForSemanticSegmentation.from_pretrained(parser).eval()
    processor = SegformerImageProcessor.from_pretrained(parser)
    pixels = (image[0] * 255).round().byte().numpy()
    outputs = model(**processor(images=pixels, return_tensors="pt"))
    (expected,) = processor.post_process_semantic_segmentation(outputs, target_sizes=[(50, 40)])
    assert torch.equal(found[0], expected) and len(found.unique()) > 1


def test_classes_go_by_their_names(parser, tmp_path):
    """A model that counts the same classes in another order."""
    for file in parser.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    order = [(i + 5) % 18 for i in range(18)]
    config["id2label"] = {str(i): SCHEMES["ATR"][order[i]] for i in range(18)}
    config["label2id"] = {name: int(i) for i, name in config["id2label"].items()}
    (tmp_path / "config.json").write_text(json.dumps(config))
    image = torch.rand(1, 64, 64, 3)
    assert torch.equal(parse_photo(image, str(tmp_path))[0], torch.tensor(order)[parse_photo(image, str(parser))[0]])


@pytest.mark.parametrize("scheme", ["LIP", "CIHP"])
def test_a_parser_of_another_scheme_in_half_precision(scheme, parser, tmp_path):
    torch.manual_seed(1)
    config = SegformerConfig.from_pretrained(parser)
    config.id2label = dict(enumerate(SCHEMES[scheme]))
    config.label2id = {name: i for i, name in enumerate(SCHEMES[scheme])}
    with torch.inference_mode(False):
        model = SegformerForSemanticSegmentation(config).half()
        model.save_pretrained(tmp_path)
    SegformerImageProcessor.from_pretrained(parser).save_pretrained(tmp_path)
    label_map, found = parse_photo(torch.rand(1, 40, 40, 3), str(tmp_path))
    assert found == scheme and label_map.shape == (1, 40, 40)


def test_photo_to_parts(in_models, parser, checkpoint):
    image = torch.rand(2, 48, 32, 3)
    found = run("Parts2WholePhotoToParts", image=image, parser="tiny", smallest=0.001)
    expected = parts_of(image, *parse_photo(image, str(parser)), 0.001)
    assert any(found) and len(found) == 6
    for part, label in zip(found, LABELS):
        assert (part is None) == (expected[label] is None)
        assert part is None or part.label == label and torch.equal(part.mask, expected[label].mask)
    parts = run("Parts2WholeEncodeLabels", clip=checkpoint.clip, parts={f"part{i}": part for i, part in enumerate(found)})
    assert [labelled.part.label for labelled in parts] == [part.label for part in found if part]


def test_a_missing_parser_is_named_with_its_folder(folders):
    from parts2whole.nodes.photo_to_parts import Parts2WholePhotoToParts

    message = Parts2WholePhotoToParts.validate_inputs(parser="segformer_b2_clothes")
    assert "human_parsing" in message and "mattmdjaga/segformer_b2_clothes" in message


def test_names_outside_the_folder_are_none(in_models, parser):
    from parts2whole.nodes.photo_to_parts import Parts2WholePhotoToParts

    assert Parts2WholePhotoToParts.validate_inputs(parser="tiny") is True
    for name in (str(parser), "../human_parsing/tiny", f"../../{parser.name}"):
        assert "No human parser" in Parts2WholePhotoToParts.validate_inputs(parser=name)


def test_files_that_are_damaged_or_missing_or_of_another_kind(parser, tmp_path):
    image = torch.rand(1, 32, 32, 3)
    (tmp_path / "config.json").write_bytes((parser / "config.json").read_bytes())
    with pytest.raises(ValueError, match="cannot be loaded.*preprocessor_config.json and model.safetensors"):
        parse_photo(image, str(tmp_path))
    for file in parser.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config["id2label"] = {str(i): f"building {i}" for i in range(18)}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="does not parse clothes: its classes are building-0"):
        parse_photo(image, str(tmp_path))


def test_every_class_belongs_to_one_label_or_none():
    names = [name for classes in CLASSES.values() for name in classes]
    assert len(names) == len(set(names)) and set(names) <= {name for scheme in SCHEMES.values() for name in scheme}


@pytest.mark.parametrize("scheme, coat", [("ATR", 17), ("LIP", 7), ("CIHP", 7)])
def test_a_drawn_label_map(scheme, coat):
    """Rows of classes: face, hair, upper clothes (two classes), pants, a speck of a dress."""
    classes = SCHEMES[scheme]
    drawn = torch.zeros(1, 50, 40)
    rows = {"face": 0, "hair": 10, "upper-clothes": 20, "pants": 40}
    for name, row in rows.items():
        drawn[0, row:row + 10] = classes.index(name)
    drawn[0, 30:40] = coat
    drawn[0, 49, 39] = classes.index("dress")
    image = (drawn / 255)[..., None].expand(-1, -1, -1, 3)
    photo = torch.rand(1, 100, 80, 3)
    face, hair, upper, lower, whole, shoes = run(
        "Parts2WholeLabelMapToParts", image=photo, label_map=image, scheme=scheme, smallest=0.001
    )
    assert shoes is None and whole is None, "one pixel is an error of the parser"
    for part, (begin, end) in {face: (0, 10), hair: (10, 20), upper: (20, 40), lower: (40, 50)}.items():
        expected = torch.zeros(50, 40)
        expected[begin:end] = 1
        expected[49, 39] = 0 if part is lower else expected[49, 39]
        assert torch.equal(part.mask[0], expected) and torch.equal(part.image, photo)
    speck = run("Parts2WholeLabelMapToParts", image=photo, label_map=image, scheme=scheme, smallest=0.0)[4]
    assert speck.mask.sum() == 1


def test_the_colours_of_the_voc_palette():
    colours = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128), 11: (192, 128, 0), 17: (128, 64, 0)}
    image = torch.tensor([[colour for colour in colours.values()]])[None].float() / 255
    assert read_label_map(image[0][None], "ATR")[0, 0].tolist() == list(colours)


def test_maps_that_are_none():
    with pytest.raises(ValueError, match=r"the colour \[13, 7, 0\] at row 1, column 2: expected the class numbers 0..17 of ATR"):
        image = torch.zeros(1, 4, 4, 3)
        image[0, 1, 2] = torch.tensor([13.0, 7.0, 0.0]) / 255
        read_label_map(image, "ATR")
    with pytest.raises(ValueError, match="2 pictures and 1 label maps"):
        parts_of(torch.rand(2, 4, 4, 3), torch.zeros(1, 4, 4), "ATR", 0.0)
