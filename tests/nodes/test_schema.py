"""Ids, inputs and outputs of the nodes are frozen: shared workflows hang on them."""

import json
import os
import re
from pathlib import Path

import parts2whole
import pytest
from harness.host import ROOT, our_nodes
from parts2whole.nodes import sockets

# Where the editor's menu has each node.
TASKS = {
    f"Parts2Whole{node}": task for task, nodes in {
        "parts": "LoadPart LoadParts MakePart PhotoToParts LabelMapToParts RefineMask CutOut",
        "pose": "ApplyPose PoseFromPhoto PoseToIUV PoseRegion People",
        "encode": "Loader EncodeLabels EncodeAppearance ModelAsEncoder DescribeParts",
        "apply": "Apply ApplyImageAttention ApplyReferences ReferenceParts Levels Sigmas",
        "detail": "CropForDetail PasteDetail CropBox",
        "outfits": "OutfitGrid OutfitSheet CombineAppearances SaveAppearance LoadAppearance",
        "look": "PreviewParts RecordAttribution ShowAttribution",
    }.items() for node in nodes.split()
}
FILES = ("checkpoint", "image", "images", "folder", "parser", "file")  # what is there to choose
SNAPSHOT = Path(__file__).with_name("schema.json")
NODES = our_nodes()


def describe(node) -> dict:
    """What a shared workflow depends on. Lists of files are not part of it."""
    info = node.GET_NODE_INFO_V1()
    inputs = {}
    for kind in ("required", "optional"):
        for name, (io_type, options) in info["input"].get(kind, {}).items():
            entry = {"type": io_type, "required": kind == "required"}
            for key in ("options", "default", "min", "max", "step", "template"):
                if key in options and not (key == "options" and name in FILES):
                    entry[key] = options[key]
            inputs[name] = entry
    outputs = list(zip(info["output"], info["output_name"]))
    return {"display_name": info["display_name"], "inputs": inputs, "outputs": [list(output) for output in outputs]}


def test_the_schemas_are_as_published():
    """After a change that keeps old workflows working: UPDATE_SNAPSHOT=1 make test"""
    described = json.loads(json.dumps({id: describe(node) for id, node in sorted(NODES.items())}))
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(described, indent=1) + "\n")
    assert described == json.loads(SNAPSHOT.read_text())


def test_only_the_v3_entry_point_is_exported():
    """The host would take NODE_CLASS_MAPPINGS instead, without a word."""
    assert not hasattr(parts2whole, "NODE_CLASS_MAPPINGS") and parts2whole.WEB_DIRECTORY == "./web"


@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_every_node_explains_itself(node):
    schema = node.GET_SCHEMA()
    assert schema.description and schema.category == f"Parts2Whole/{TASKS[schema.node_id]}"
    docs = ROOT / "web" / "docs"
    page = (docs / f"{schema.node_id}.md").read_text()
    assert page.startswith(f"# {schema.display_name}\n")
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert pictures[:1] == [f"nodes/{schema.node_id}.png"] and all((docs / picture).is_file() for picture in pictures)
    for entry in schema.inputs:
        entry = getattr(entry, "template", entry)
        assert getattr(entry, "input", entry).tooltip, f"{schema.node_id}.{getattr(entry, 'id', 'Autogrow')}"


@pytest.mark.parametrize("word", [
    "reference", "face", "mask", "character", "consistency", "identity", "person", "ip-adapter", "outfit", "clothes", "try-on",
    "参考", "衣服", "人物", "换装",
])
def test_what_people_type_is_a_search_word_of_some_node(word):
    """tests/editor types them."""
    assert [id for id, node in NODES.items() if word in node.GET_SCHEMA().search_aliases]


def test_every_socket_has_a_colour_that_tells_it_from_the_others_and_from_the_hosts():
    """As distances in red, green and blue, each 0..255."""
    script = (ROOT / "web" / "nodes.js").read_text()
    ours = dict(re.findall(r"^  (P2W_[A-Z_]+): \"(#[0-9a-f]{6})\"", script, re.MULTILINE))
    types = {socket.io_type for name, socket in vars(sockets).items() if name.endswith("Socket")}
    assert ours.keys() == types and len(types) > 8
    hosts = ["#64b5f6", "#81c784", "#b39ddb", "#ffd500", "#ff6e6e", "#ffa931", "#ff9cf9", "#a8dadc", "#7f7f7f"]  # of its dark theme
    rgb = [[int(colour[i:i + 2], 16) for i in (1, 3, 5)] for colour in (*ours.values(), *hosts)]
    near = [(a, b) for i, a in enumerate(rgb[:len(ours)]) for b in rgb[i + 1:] if sum((x - y) ** 2 for x, y in zip(a, b)) < 45**2]
    assert not near


def test_the_ids_of_the_release_are_there():
    assert set(NODES) >= {
        "Parts2WholeLoader", "Parts2WholeLoadPart", "Parts2WholeMakePart", "Parts2WholeEncodeLabels",
        "Parts2WholeEncodeAppearance", "Parts2WholeApply", "Parts2WholeApplyPose", "Parts2WholeApplyImageAttention",
        "Parts2WholeModelAsEncoder", "Parts2WholeSigmas",
    }
