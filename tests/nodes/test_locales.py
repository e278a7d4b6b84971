"""The editor's texts in every language: all of them, for all nodes."""

import json
import os

import pytest
from harness.host import ROOT, our_nodes

LANGUAGES = sorted(path.name for path in (ROOT / "locales").iterdir())


def described(node) -> dict:
    """A node in the form of the editor's nodeDefs.json."""
    schema = node.GET_SCHEMA()
    inputs = {}
    for each in schema.inputs:
        # The slots of an Autogrow have the texts of its template.
        texts = getattr(getattr(each, "template", None), "input", each)
        inputs[each.id] = {"name": each.display_name or each.id}
        if texts.tooltip:
            inputs[each.id]["tooltip"] = texts.tooltip
    outputs = {}
    for i, each in enumerate(schema.outputs):
        outputs[str(i)] = {"name": each.display_name or each.io_type}
        if each.tooltip:
            outputs[str(i)]["tooltip"] = each.tooltip
    return {"display_name": schema.display_name, "description": schema.description, "inputs": inputs, "outputs": outputs}


ENGLISH = {id: described(node) for id, node in sorted(our_nodes().items())}


def keys(value, path=()):
    if not isinstance(value, dict):
        return {path}
    return {key for name, inner in value.items() for key in keys(inner, (*path, name))}


def texts(language: str) -> dict:
    return json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))


def test_english_is_what_the_nodes_say():
    """After a change: UPDATE_SNAPSHOT=1 make test, and then the other languages."""
    if os.environ.get("UPDATE_SNAPSHOT"):
        path = ROOT / "locales" / "en" / "nodeDefs.json"
        path.write_text(json.dumps(ENGLISH, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    assert texts("en") == ENGLISH


@pytest.mark.parametrize("language", [language for language in LANGUAGES if language != "en"])
def test_another_language_is_complete(language):
    assert keys(texts(language)) == keys(ENGLISH)
    sentences = [key for key in keys(ENGLISH) if key[-1] in ("tooltip", "description")]
    assert not [key for key in sentences if lookup(texts(language), key) == lookup(ENGLISH, key)], "not translated"


def lookup(value, path):
    for name in path:
        value = value[name]
    return value


def test_there_is_another_language():
    assert "en" in LANGUAGES and len(LANGUAGES) > 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_the_template_browser_calls_the_pack_by_its_name(language):
    """Its folder is comfyui-parts2whole after a clone, parts2whole from the registry."""
    main = json.loads((ROOT / "locales" / language / "main.json").read_text(encoding="utf-8"))
    names = main["templateWorkflows"]["category"]
    assert names.keys() == {"comfyui-parts2whole", "parts2whole"}
    assert all(name.startswith("Parts2Whole") for name in names.values())
