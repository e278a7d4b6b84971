"""From a photograph to six parts: by a small SegFormer with random weights, from its saved files, and by drawn label maps."""

import json
import sys

import pytest
import torch
from harness.parsers import save_parser
from harness.workbench import run
from parts2whole.pictures.human_parsing import parse_photo
from parts2whole.pictures.label_maps import CLASSES, SCHEMES, parts_of, read_label_map
from parts2whole.pictures.part import LABELS
from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

FACE, HAIR, UPPER, LOWER, WHOLE, SHOES = LABELS


@pytest.fixture(scope="module")
def parser(tmp_path_factory):
    """A parser of twelve channels, in a folder of its own."""
    return save_parser(tmp_path_factory.mktemp("parsers") / "tiny", SCHEMES["ATR"])


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


@pytest.fixture
def copy(parser, tmp_path):
    """A copy of the parser that a test may break."""
    for file in parser.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


def refused(folder, message):
    with pytest.raises(ValueError, match=message):
        parse_photo(torch.rand(1, 32, 32, 3), str(folder))


def change(folder, file="config.json", **values):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.fixture
def network(monkeypatch):
    """Addresses that this process asked for."""
    asked = []

    def seen(event, arguments):
        if event in ("socket.connect", "socket.getaddrinfo"):
            asked.append(arguments)

    sys.addaudithook(seen)
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    return asked


@pytest.mark.parametrize("values", [
    {"model_type": "upernet", "backbone": "stranger/backbone", "use_pretrained_backbone": True, "backbone_config": None},
    {"model_type": None}, {"model_type": ["segformer"]},
], ids=str)
def test_a_configuration_of_another_architecture_is_not_followed(copy, network, values):
    change(copy, **values)
    refused(copy, "config.json: model_type is .*, expected 'segformer'")
    assert not network


def test_the_configuration_chooses_no_code(copy, parser, network):
    """Attention of another repository, code, quantization and adapters are not read."""
    for name in ("_attn_implementation", "attn_implementation", "_attn_implementation_internal"):
        change(copy, **{name: "stranger/attention"})
    change(copy, auto_map={"AutoConfig": "stranger/code--module.Class"}, quantization_config={"quant_method": "gptq", "bits": 4})
    (copy / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "stranger/base", "peft_type": "LORA"}))
    image = torch.rand(1, 32, 32, 3)
    assert torch.equal(parse_photo(image, str(copy))[0], parse_photo(image, str(parser))[0])
    assert not network


def test_missing_tensors_are_named_and_counted(copy):
    from safetensors.torch import load_file, save_file

    weights = load_file(copy / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias", "batch_norm.weight"):
        less = {key: value for key, value in weights.items() if key != f"decode_head.{name}"}
        save_file(less, copy / "model.safetensors")
        refused(copy, f"model.safetensors lacks 1 tensors: decode_head.{name}.*download the folder again")


def test_pickles_are_not_read(copy):
    from safetensors.torch import load_file

    torch.save(load_file(copy / "model.safetensors"), copy / "pytorch_model.bin")
    (copy / "model.safetensors").unlink()
    refused(copy, "model.safetensors is missing")


@pytest.mark.parametrize("values, message", [
    ({"hidden_sizes": [12, 12, 12, 4000]}, "hidden_sizes is .*, but the weights beside it are made for"),
    ({"hidden_sizes": [12, 12, 12, 10**9]}, "hidden_sizes is .*, expected 4 whole numbers from 1 to"),
    ({"depths": [1, 1, 1, 10**9]}, "depths is"),
    ({"depths": [1, 1, 1, 60]}, "lacks 59 tensors: segformer.encoder.block.3.1.mlp"),
    ({"num_encoder_blocks": 10**9}, "num_encoder_blocks is 1000000000"),
    ({"decoder_hidden_size": 4000}, "decoder_hidden_size is 4000, but the weights"),
    ({"mlp_ratios": [4, 4, 4, 16]}, "mlp_ratios is"), ({"sr_ratios": [8, 4, 2, 64]}, "lacks 1 tensors: .*sr.weight"),
    ({"num_attention_heads": [1, 1, 1, 5]}, "no multiples of num_attention_heads"),
    ({"strides": [0, 2, 2, 2]}, "strides is"), ({"hidden_act": "stranger"}, "hidden_act is not one of"),
    ({"id2label": {"0": "face"}}, "names 1 classes, the weights have 18"), ({"id2label": [1]}, "id2label"),
    ({"layer_norm_eps": "x"}, "layer_norm_eps"),
], ids=str)
def test_a_configuration_that_does_not_fit_the_weights_is_refused(copy, values, message):
    change(copy, **values)
    refused(copy, message)


@pytest.mark.parametrize("values", [
    {"size": {"height": 10**6, "width": 64}}, {"size": {"longest_edge": 64}}, {"size": None}, {"image_std": [0, 0, 0]},
    {"image_mean": [0.5]}, {"resample": 77},
], ids=str)
def test_processing_that_cannot_be_done_is_refused(copy, values):
    change(copy, "preprocessor_config.json", **values)
    refused(copy, f"preprocessor_config.json: {'(height|width)' if 'size' in values else next(iter(values))} is")


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
