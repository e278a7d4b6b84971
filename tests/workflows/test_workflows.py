"""The shipped workflows: the editor's files and the API's name what exists, and say the same."""

import json
from collections.abc import Callable
from functools import partial

import nodes as host_nodes
import pytest
from harness.host import ROOT, load_core_nodes
from PIL import Image

load_core_nodes("nodes_context_windows", "nodes_edit_model", "nodes_flux", "nodes_primitive", "nodes_qwen", "nodes_sd3")

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
    """What the editor would queue for a saved workflow. The nodes of a subgraph keep the ids that they have in it."""
    insides = {inside["id"]: inside for inside in workflow.get("definitions", {}).get("subgraphs", [])}
    inside = {node["id"]: insides[node["type"]] for node in workflow["nodes"] if node["type"] in insides}
    inner = {id: {link["id"]: (link["origin_id"], link["origin_slot"]) for link in each["links"]} for id, each in inside.items()}
    links = {link[0]: (link[1], link[2]) for link in workflow["links"]}

    def source(link: int | None) -> list | None:
        """The output that a link of the workflow comes from."""
        if link is None:
            return None
        origin, slot = links[link]
        if origin in inside:
            origin, slot = inner[origin][inside[origin]["outputs"][slot]["linkIds"][0]]
        return [str(origin), slot]

    def source_inside(subgraph: dict, link: int | None) -> list | None:
        """The same for a link of a subgraph: it may come in by a slot of the subgraph's node."""
        if link is None:
            return None
        origin, slot = inner[subgraph["id"]][link]
        return source(subgraph["inputs"][slot]["link"]) if origin < 0 else [str(origin), slot]

    prompt = {}
    for node in workflow["nodes"]:
        if node["id"] in inside:
            for each in inside[node["id"]]["nodes"]:
                prompt[str(each["id"])] = queued(each, partial(source_inside, node))
        elif node["type"] not in NOTES:
            prompt[str(node["id"])] = queued(node, source)
    return prompt


def queued(node: dict, source: Callable[[int | None], list | None]) -> dict:
    """source: for a link that a node's input names, what is queued for it, or None"""
    inputs, values = {}, list(node["widgets_values"])
    for entry in node["inputs"]:
        value = None
        if "widget" in entry:
            value = values.pop(0)
            if values and values[0] in CONTROL_AFTER_GENERATE:
                values.pop(0)
        if (linked := source(entry["link"])) is not None:
            inputs[entry["name"]] = linked
        elif "widget" in entry and entry["name"] != "upload":
            inputs[entry["name"]] = value
    assert not values, f"{node['type']}: values {values} belong to no widget"
    return {"class_type": node["type"], "inputs": inputs}


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
def test_no_widget_that_a_node_has_gained_is_missing(name):
    """The editor queues it with its default all the same: then the two files say less than what runs."""
    for node in load("api", f"{name}.json").values():
        if node["class_type"].startswith("Parts2Whole"):
            info = host_nodes.NODE_CLASS_MAPPINGS[node["class_type"]].GET_NODE_INFO_V1()["input"]
            widgets = {
                input for kind in info.values() for input, (type, *options) in kind.items()
                if type in ("COMBO", "INT", "FLOAT", "STRING", "BOOLEAN") and not (options and options[0].get("forceInput"))
            }
            assert widgets <= {*node["inputs"]}, node["class_type"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_every_workflow_has_a_thumbnail_and_notes(name):
    path = ROOT / "workflows" / f"{name}.jpg"
    with Image.open(path) as picture:  # the template browser shows a square
        assert picture.width == picture.height >= 512
    assert path.stat().st_size < 300_000
    assert [node for node in load(f"{name}.json")["nodes"] if node["type"] in NOTES]


def test_nothing_else_lies_in_the_template_folder():
    assert sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json")) == WORKFLOWS


def blueprint_of(subgraph: dict) -> tuple[dict, dict]:
    """The blueprint of a subgraph, and its node."""
    blueprint = json.loads((ROOT / "subgraphs" / f"{subgraph['name']}.json").read_text())
    node, = blueprint["nodes"]
    assert blueprint["definitions"]["subgraphs"] == [subgraph] and node["type"] == subgraph["id"]
    assert not [entry for entry in node["inputs"] if entry["link"] is not None]
    return blueprint, node


def test_the_detail_of_the_template_is_a_blueprint_too():
    """But for three values: the doll's model knows faces of one size only, is to change little, and changes the background too."""
    _, subgraph = load("detail.json")["definitions"]["subgraphs"]
    crop, sampler, paste = (
        next(node["widgets_values"] for node in subgraph["nodes"] if node["type"] == kind)
        for kind in ("Parts2WholeCropForDetail", "KSampler", "Parts2WholePasteDetail")
    )
    assert (crop[0], sampler[-1], paste[0]) == (1, 0.2, 24)
    crop[0], sampler[-1], paste[0] = 2, 0.3, 6
    blueprint, node = blueprint_of(subgraph)
    sockets = [entry["label"] for entry in node["inputs"] if "widget" not in entry]
    assert sockets == ["image", "model", "positive", "negative", "vae", "pose"]
    assert {"detailer", "face detail", "细节"} <= {*blueprint["extra"]["BlueprintSearchAliases"]}


@pytest.mark.parametrize("name", ["paper_doll", "training_free_sd15"])
def test_a_blueprint_is_what_a_workflow_has_in_it(name):
    """The one node that the editor's search offers, and the one in the template, are the same."""
    subgraph, = load(f"{name}.json")["definitions"]["subgraphs"]
    blueprint, node = blueprint_of(subgraph)
    slots = [entry["label"] for entry in node["inputs"] if entry["type"] == "P2W_PART"]
    assert {*slots} == {"Face", "Hair", "Top", "Trousers", "Shoes", "One more part"}
    assert blueprint["extra"]["BlueprintDescription"] == subgraph["description"]
    words = "reference face mask character consistency identity person ip-adapter outfit clothes try-on 衣服 人物 换装 参考"
    assert {*words.split()} <= {*blueprint["extra"]["BlueprintSearchAliases"]}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_the_app_names_controls_that_there_are(name):
    workflow = load(f"{name}.json")
    nodes = {str(node["id"]): node for node in workflow["nodes"]}
    app = workflow["extra"]
    assert app["linearMode"] is False, "the graph comes first"
    assert app["linearData"]["outputs"] and {*app["linearData"]["outputs"]} <= {*nodes}
    for node, widget in app["linearData"]["inputs"]:
        assert widget in [entry["widget"]["name"] for entry in nodes[node]["inputs"] if "widget" in entry]
