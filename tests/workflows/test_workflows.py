"""The shipped workflows: the editor's files and the API's name what exists, and say the same."""

import json

import nodes as host_nodes
import pytest
from harness.host import ROOT, load_core_nodes

load_core_nodes("nodes_edit_model", "nodes_flux", "nodes_primitive", "nodes_qwen", "nodes_sd3")

WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
NOTES = ("Note", "MarkdownNote")
CONTROL_AFTER_GENERATE = ("fixed", "increment", "decrement", "randomize")


def load(*path):
    return json.loads(ROOT.joinpath("workflows", *path).read_text())


def known_inputs(class_type: str) -> dict[str, bool]:
    """Names of a node's inputs, and whether each is required."""
    node = host_nodes.NODE_CLASS_MAPPINGS[class_type]
    info = node.GET_NODE_INFO_V1() if hasattr(node, "GET_NODE_INFO_V1") else {"input": node.INPUT_TYPES()}
    inputs = {}
    for kind in ("required", "optional"):
        for name, entry in info["input"].get(kind, {}).items():
            if entry[0] == "COMFY_AUTOGROW_V3":
                template = entry[1]["template"]
                inputs.update({f"{name}.{template['prefix']}{i}": i < template["min"] for i in range(template["max"])})
            else:
                inputs[name] = kind == "required"
    return inputs


def to_api(workflow: dict) -> dict:
    """What the editor would queue for a saved workflow."""
    links = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt = {}
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        inputs, values = {}, list(node["widgets_values"])
        for entry in node["inputs"]:
            value = None
            if "widget" in entry:
                value = values.pop(0)
                if values and values[0] in CONTROL_AFTER_GENERATE:
                    values.pop(0)
            if entry["link"] is not None:
                inputs[entry["name"]] = links[entry["link"]]
            elif "widget" in entry and entry["name"] != "upload":
                inputs[entry["name"]] = value
        assert not values, f"{node['type']}: values {values} belong to no widget"
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs}
    return prompt


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_editors_file_and_the_apis_say_the_same(name):
    api = {id: {"class_type": node["class_type"], "inputs": node["inputs"]} for id, node in load("api", f"{name}.json").items()}
    assert to_api(load(f"{name}.json")) == api


@pytest.mark.parametrize("name", WORKFLOWS)
def test_only_existing_nodes_and_inputs_are_named(name):
    api = load("api", f"{name}.json")
    for node in api.values():
        known = known_inputs(node["class_type"])
        assert set(node["inputs"]) <= set(known), node["class_type"]
        assert {input for input, required in known.items() if required} <= set(node["inputs"]), node["class_type"]
        for value in node["inputs"].values():
            if isinstance(value, list):
                outputs = host_nodes.NODE_CLASS_MAPPINGS[api[value[0]]["class_type"]].RETURN_TYPES
                assert value[1] < len(outputs)


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_workflow_has_a_thumbnail_and_notes(name):
    assert (ROOT / "workflows" / f"{name}.jpg").stat().st_size < 300_000
    assert [node for node in load(f"{name}.json")["nodes"] if node["type"] in NOTES]


def test_nothing_else_lies_in_the_template_folder():
    assert sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json")) == WORKFLOWS
