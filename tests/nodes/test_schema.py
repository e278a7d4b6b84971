"""Ids, inputs and outputs of the nodes are frozen: shared workflows hang on them."""

import json
import os
import re
from pathlib import Path

import parts2whole
import pytest
from harness.host import ROOT, our_nodes

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
                if key in options and not (key == "options" and name in ("checkpoint", "image", "parser", "file")):
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
    assert schema.description and schema.category == "Parts2Whole"
    docs = ROOT / "web" / "docs"
    page = (docs / f"{schema.node_id}.md").read_text()
    assert page.startswith(f"# {schema.display_name}\n")
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", page)
    assert pictures and all((docs / picture).is_file() for picture in pictures)
    for entry in schema.inputs:
        entry = getattr(entry, "template", entry)
        assert getattr(entry, "input", entry).tooltip, f"{schema.node_id}.{getattr(entry, 'id', 'Autogrow')}"


def test_the_ids_of_the_release_are_there():
    assert set(NODES) >= {
        "Parts2WholeLoader", "Parts2WholeLoadPart", "Parts2WholeMakePart", "Parts2WholeEncodeLabels",
        "Parts2WholeEncodeAppearance", "Parts2WholeApply", "Parts2WholeApplyPose", "Parts2WholeApplyImageAttention",
        "Parts2WholeModelAsEncoder", "Parts2WholeSigmas",
    }
