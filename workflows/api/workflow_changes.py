"""Where pictures, texts, numbers and widgets go in a workflow in API format: what compose.py and the catalogue change of it."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

SAMPLERS = ("KSampler", "KSamplerAdvanced", "SamplerCustom", "SamplerCustomAdvanced", "RandomNoise")
# From a sampler to the texts and to the size, in order of preference.
TO_PROMPT = ("text", "positive", "conditioning", "conditioning_1", "conditioning_to")
TO_NEGATIVE = ("text", "negative", "conditioning", "conditioning_1", "conditioning_to")
TO_SIZE = ("latent_image", "samples", "latent")


@dataclass(frozen=True)
class Changes:
    """What is to be another one. Pictures are whatever the caller uploads; None and what is not named stays as it is.

    parts, masks: by label, as `find_parts` gives them; a mask is white where its picture shows the part
    without: labels of parts that are left out
    widgets: by (node, input)
    """

    parts: dict[str, Any] = field(default_factory=dict)
    masks: dict[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    pose: Any = None
    prompt: str | None = None
    negative: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    widgets: dict[tuple[str, str], Any] = field(default_factory=dict)


class Slot(NamedTuple):
    """Where the name of an uploaded picture goes: an input of a node."""

    inputs: dict
    name: str
    picture: Any


class NoPlace(ValueError):
    """The workflow has no place for a change."""


def read_workflow(path: Path) -> dict[str, dict]:
    """raises: ValueError where the file cannot be read or is not in API format"""
    try:
        workflow = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"'{path}' cannot be read ({error})") from None
    if not isinstance(workflow, dict) or not all(
        isinstance(node, dict) and "class_type" in node and isinstance(node.get("inputs"), dict) for node in workflow.values()
    ):
        raise ValueError(
            f"'{path}' is not in API format: take one of workflows/api, or export it from the editor by File, Export (API)"
        )
    return workflow


def text_of(workflow: dict, value) -> str | None:
    """The text of an input, also where it comes from a node that only holds it. None where it is computed."""
    for _ in workflow:
        if not isinstance(value, list) or value[0] not in workflow:
            break
        inputs = [*workflow[value[0]]["inputs"].values()]
        value = inputs[0] if len(inputs) == 1 else None
    return value if isinstance(value, str) else None


def furthest(workflow: dict, node: dict, names: tuple[str, ...]) -> tuple[dict, str]:
    """Follows the inputs of these names to the node where the last of them is. Returns it and the name."""
    for _ in workflow:
        name = next(name for name in names if name in node["inputs"])
        value = node["inputs"][name]
        before = workflow.get(value[0]) if isinstance(value, list) else None
        if before is None or not any(name in before["inputs"] for name in names):
            break
        node = before
    return node, name


def find_parts(workflow: dict) -> dict[str, str]:
    """The Load Part nodes by label; the second of a label as label#2, and as `node 7` where the label is computed."""
    parts = {}
    for id, node in workflow.items():
        if node["class_type"] == "Parts2WholeLoadPart":
            inputs = node["inputs"]
            custom, label = text_of(workflow, inputs.get("custom_label", "")), text_of(workflow, inputs.get("label"))
            label = f"node {id}" if custom is None else custom.strip() or label or f"node {id}"
            times = sum(name.split("#")[0] == label for name in parts)
            parts[f"{label}#{times + 1}" if times else label] = id
    return parts


def find_texts(workflow: dict, starts: list[dict], names: tuple[str, ...]) -> list[tuple[dict, str]]:
    """The nodes and inputs that hold a text and are reached from these nodes by inputs of these names."""
    ends = [furthest(workflow, node, names) for node in starts if any(name in node["inputs"] for name in names)]
    return [(node, name) for node, name in ends if text_of(workflow, node["inputs"][name]) is not None]


def find_numbers(workflow: dict, starts: list[dict], name: str) -> list[tuple[dict, str]]:
    """The nodes and inputs that hold the width or height of the latents that these samplers begin with: the node that only
    holds the number, where there is one, so that whatever takes it from there gets the same."""
    found = []
    for start in starts:
        if not any(each in start["inputs"] for each in TO_SIZE):
            continue
        node, end = furthest(workflow, start, (*TO_SIZE, name))
        for _ in workflow:
            value = node["inputs"][end]
            if not isinstance(value, list) or value[0] not in workflow:
                break
            node = workflow[value[0]]
            if len(node["inputs"]) != 1:
                break
            (end,) = node["inputs"]
        if end in node["inputs"] and type(node["inputs"][end]) in (int, float) and (node, end) not in found:
            found.append((node, end))
    return found


def change(workflow: dict, changes: Changes) -> list[Slot]:
    """Puts the changes into the workflow. Returns where the pictures go, which are left to the caller.

    raises: NoPlace where one of them has no place; the workflow is then as before
    """
    parts, slots, values = find_parts(workflow), [], []
    samplers = [node for node in workflow.values() if node["class_type"] in SAMPLERS or node["class_type"].endswith("Guider")]
    for label, picture in changes.parts.items():
        slots.append(Slot(_part(workflow, parts, label)["inputs"], "image", picture))
    masks = []
    for label, picture in changes.masks.items():
        node = _part(workflow, parts, label)
        # Behind what mends the mask.
        masks.append((*(furthest(workflow, node, ("mask",)) if "mask" in node["inputs"] else (node, "mask")), label, picture))
    for label in changes.without:
        _part(workflow, parts, label)
        _can_be_left_out(workflow, label, parts[_plain(label)])
    left_out = [parts[_plain(label)] for label in changes.without]
    if changes.pose is not None:
        applied = [node for node in workflow.values() if node["class_type"] == "Parts2WholeApplyPose"]
        poses = find_texts(workflow, applied, ("image",))
        if not poses:
            raise NoPlace("The workflow has no Apply Pose whose image comes from a Load Image, so a pose has no place in it.")
        slots += [Slot(node["inputs"], name, changes.pose) for node, name in poses]
    if changes.seed is not None:
        seeds = [(node, name) for node in samplers for name in ("seed", "noise_seed") if name in node["inputs"]]
        if not seeds:
            raise NoPlace(f"The workflow has none of {', '.join(SAMPLERS)}, so a seed has no place in it.")
        values += [(node, name, changes.seed) for node, name in seeds]
    prompts = find_texts(workflow, samplers, TO_PROMPT)
    if changes.prompt is not None:
        if not prompts:
            raise NoPlace("No sampler's positive conditioning leads to a node with a text, so a prompt has no place.")
        values += [(node, name, changes.prompt) for node, name in prompts]
    if changes.negative is not None:
        negatives = find_texts(workflow, [node for node in samplers if "negative" in node["inputs"]], TO_NEGATIVE)
        if not negatives or any(each in prompts for each in negatives):
            raise NoPlace("No sampler's negative conditioning leads to a text of its own, so a negative prompt has no place.")
        values += [(node, name, changes.negative) for node, name in negatives]
    for side in ("width", "height"):
        if (pixels := getattr(changes, side)) is not None:
            numbers = find_numbers(workflow, samplers, side)
            if not numbers:
                raise NoPlace(f"No sampler begins with a latent that has a {side} as a number, so a {side} has no place.")
            values += [(node, name, pixels) for node, name in numbers]
    for place, value in changes.widgets.items():
        node = _with_widget(workflow, *place)
        values.append((node, place[1], _like(value, node["inputs"][place[1]], ".".join(place))))

    for node, name, value in values:
        node["inputs"][name] = value
    for node, name, label, picture in masks:
        mask = f"mask of node {parts[_plain(label)]}"
        workflow[mask] = {"class_type": "LoadImageMask", "inputs": {"image": "", "channel": "red"}}
        node["inputs"][name] = [mask, 0]
        slots.append(Slot(workflow[mask]["inputs"], "image", picture))
    for id in left_out:
        del workflow[id]
    for node in workflow.values():
        for name, value in [*node["inputs"].items()]:
            if isinstance(value, list) and value[:1] and value[0] in left_out:
                del node["inputs"][name]
    return slots


def _plain(label: str) -> str:
    return label.removesuffix("#1")


def _part(workflow: dict, parts: dict[str, str], label: str) -> dict:
    if _plain(label) not in parts:
        raise NoPlace(f"The workflow has no Load Part with the label '{label}': it has {', '.join(sorted(parts))}.")
    return workflow[parts[_plain(label)]]


def _can_be_left_out(workflow: dict, label: str, id: str):
    for user, node in workflow.items():
        for name, value in node["inputs"].items():
            takes_fewer = node["class_type"] == "Parts2WholeEncodeLabels" and name.startswith("parts.")
            if isinstance(value, list) and value[:1] == [id] and not takes_fewer:
                raise NoPlace(f"The part '{label}' cannot be left out: node {user}, {node['class_type']}, needs it.")


def _with_widget(workflow: dict, id: str, name: str) -> dict:
    if id not in workflow:
        raise NoPlace(f"The workflow has no node {id}, so '{id}.{name}' has no place.")
    widgets = {each: value for each, value in workflow[id]["inputs"].items() if not isinstance(value, list)}
    if name not in widgets:
        raise NoPlace(
            f"Node {id}, {workflow[id]['class_type']}, has no value '{name}' of its own in the workflow: "
            f"it has {', '.join(widgets) or 'none'}."
        )
    return workflow[id]


def _like(value, before, place: str):
    """The value, in the kind of the one before it: what comes from a command line or a CSV file is a text."""
    if not isinstance(value, str) and not isinstance(before, str):
        return value
    if isinstance(before, bool):
        if value.lower() not in ("true", "false"):
            raise NoPlace(f"'{place}' takes true or false, not '{value}'.")
        return value.lower() == "true"
    if isinstance(before, (int, float)):
        for kind in (int, float):  # the editor saves 2.0 as 2
            with suppress(ValueError):
                return kind(value)
        raise NoPlace(f"'{place}' takes a number, not '{value}'.")
    return str(value)
