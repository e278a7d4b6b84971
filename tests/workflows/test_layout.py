"""The workflows are legible where they open: measured in their files, as the editor draws them."""

import copy
import json
import math
from itertools import combinations

import pytest
from harness.host import ROOT

TITLE, SLOT, WIDGET = 30, 20, 24  # the editor's heights, in its units
# The editor fits a graph to three quarters of its window, and hides texts under 8 pixels: those of a graph below 57 %.
WINDOW, SHARE, LEGIBLE, LEGIBLE_INSIDE = (1600, 900), 0.75, 0.57, 0.5
PICTURES = ("Parts2WholeLoadPart", "LoadImage")
PITCH = 480  # between rows of nodes with a picture, so that Nodes 2.0 has room
HIGHER = 40  # in Nodes 2.0: ours, which have a foot there, and nodes with a picture
ROOMY = ("Parts2WholePreviewParts", "Parts2WholeShowAttribution", "Parts2WholeOutfitSheet")  # their pictures leave room for it
NARROWEST, LETTER = 225, 7.5  # in Nodes 2.0; of a title, see web/nodes.js
MOST_WORDS = 110

WORKFLOWS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "workflows").glob("*.json"))}
INSIDE = {
    f"{name}, {graph['name']}": graph for name, workflow in WORKFLOWS.items() for graph in workflow["definitions"]["subgraphs"]
}
GRAPHS = {**WORKFLOWS, **{f"{name}, inside": graph for name, graph in INSIDE.items()}}
each_workflow = pytest.mark.parametrize("workflow", WORKFLOWS.values(), ids=WORKFLOWS)
each_graph = pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)


def box(node) -> tuple:
    (x, y), (width, height) = node["pos"], node["size"]
    return x, y - TITLE, x + width, y + height


def zoom(nodes) -> float:
    """At which the editor shows them when it opens them."""
    lefts, tops, rights, bottoms = zip(*map(box, nodes), strict=True)
    width, height = max(rights) - min(lefts) + 20, max(bottoms) - min(tops) + 20
    return SHARE * min(WINDOW[0] / width, WINDOW[1] / height)


def overlap(a, b) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def name(node) -> str:
    return node.get("title") or node["type"]


def entrance(node, slot: int) -> tuple:
    """Where a wire ends: sockets stand above the widgets."""
    sockets = [i for i, entry in enumerate(node["inputs"]) if "widget" not in entry]
    x, y = node["pos"]
    if slot in sockets:
        return x, y + SLOT * (sockets.index(slot) + 0.7)
    return x, y + SLOT * max(len(sockets), len(node["outputs"])) + WIDGET * (slot - len(sockets) + 0.7)


def wires(graph) -> list[tuple[str, list, tuple]]:
    """Each wire between two nodes: what it is, points along it, and the ids of its nodes."""
    nodes = {node["id"]: node for node in graph["nodes"]}
    bends = {bend["id"]: bend for bend in graph.get("reroutes") or graph["extra"].get("reroutes", [])}
    last = {link["id"]: link["parentId"] for link in graph["extra"].get("linkExtensions", [])}
    found = []
    for link in graph["links"]:
        if isinstance(link, dict):  # as subgraphs write it
            last[link["id"]] = link.get("parentId")
            link = [link[key] for key in ("id", "origin_id", "origin_slot", "target_id", "target_slot")]
        id, origin, out, target, slot = link[:5]
        if origin not in nodes or target not in nodes:
            continue  # from or to a subgraph's border, which every graph has at its side
        between, bend = [], last.get(id)
        while bend:
            between.insert(0, tuple(bends[bend]["pos"]))
            bend = bends[bend].get("parentId")
        start = box(nodes[origin])[2], nodes[origin]["pos"][1] + SLOT * (out + 0.7)
        ends = [start, *between, entrance(nodes[target], slot)]
        points = [point for corners in splines(ends) for point in curve(*corners)]
        found.append((f"{name(nodes[origin])} -> {name(nodes[target])}", points, (origin, target)))
    return found


def splines(ends: list[tuple]) -> list[tuple]:
    """The corners of a wire's Bezier curves: as the editor draws them, to the right out of a node, through each of the wire's bends
    halfway between the directions to its neighbours, and from the left into the other node."""
    def ahead(before, bend, after):
        """The direction in which the wire runs through a bend."""
        come = math.atan2(bend[1] - before[1], bend[0] - before[0])
        turn = (come - math.atan2(after[1] - bend[1], after[0] - bend[0])) / 2
        angle = come - turn - (math.pi if abs(turn) > math.pi / 2 else 0)
        return math.cos(angle), math.sin(angle)

    at_bends = [ahead(*three) for three in zip(ends, ends[1:], ends[2:])]
    directions = [(1, 0), *at_bends, (1, 0)]
    found = []
    for i, ((x0, y0), (x1, y1)) in enumerate(zip(ends, ends[1:])):
        pull = math.dist((x0, y0), (x1, y1)) / 4
        out, into = (pull if i == 0 else min(pull, 20)), (pull if i == len(at_bends) else min(pull, 20))
        (ax, ay), (bx, by) = directions[i], directions[i + 1]
        found.append(((x0, y0), (x0 + out * ax, y0 + out * ay), (x1 - into * bx, y1 - into * by), (x1, y1)))
    return found


def curve(*corners: tuple) -> list[tuple]:
    points = []
    for i in range(41):
        t = i / 40
        weights = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t ** 3
        points.append(tuple(sum(weight * corner[axis] for weight, corner in zip(weights, corners)) for axis in (0, 1)))
    return points


@each_workflow
def test_a_workflow_is_legible_where_it_opens(workflow):
    assert zoom(workflow["nodes"]) >= LEGIBLE


@pytest.mark.parametrize("graph", INSIDE.values(), ids=INSIDE)
def test_the_inside_is_nearly_as_legible(graph):
    assert zoom(graph["nodes"]) >= LEGIBLE_INSIDE


@each_graph
def test_nothing_lies_on_anything(graph):
    assert not [(name(a), name(b)) for a, b in combinations(graph["nodes"], 2) if overlap(box(a), box(b))]
    frames = [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in graph["groups"])]
    assert not [(a, b) for a, b in combinations(frames, 2) if overlap(a, b)]


@each_workflow
def test_every_node_is_whole_in_a_group(workflow):
    for node in workflow["nodes"]:
        left, top, right, bottom = box(node)
        assert any(
            x <= left and y + TITLE <= top and right <= x + width and bottom <= y + height
            for x, y, width, height in (group["bounding"] for group in workflow["groups"])
        ), name(node)


@each_graph
def test_no_wire_runs_behind_a_node(graph):
    behind = []
    for wire, points, ends in wires(graph):
        for node in graph["nodes"]:
            left, top, right, bottom = box(node)
            slack = 12 if node["id"] in ends else 0  # a wire touches the edges of its own nodes
            if any(left + slack < x < right - slack and top < y < bottom for x, y in points):
                behind.append((wire, name(node)))
    assert not behind


def in_nodes_2(graph) -> dict:
    """As large as its nodes are in Nodes 2.0."""
    graph = copy.deepcopy(graph)
    for node in graph["nodes"]:
        ours = node["type"].startswith("Parts2Whole")
        node["size"][0] = max(node["size"][0], NARROWEST, LETTER * len(node.get("title", "")) + 60 if ours else 0)
        if node["type"] in PICTURES or ours and node["type"] not in ROOMY:
            node["size"][1] += HIGHER
    return graph


@each_graph
def test_nothing_lies_on_anything_in_nodes_2_either(graph):
    test_nothing_lies_on_anything(in_nodes_2(graph))


@each_workflow
def test_nodes_2_covers_no_wire_either(workflow):
    test_every_node_is_whole_in_a_group(in_nodes_2(workflow))
    test_no_wire_runs_behind_a_node(in_nodes_2(workflow))


@each_workflow
def test_no_half_is_empty(workflow):
    """Nodes cover more than a third of the left, the right, the upper and the lower half, and of each group."""
    boxes = [box(node) for node in workflow["nodes"]]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    left, top, right, bottom = min(lefts), min(tops), max(rights), max(bottoms)
    across, down = (left + right) / 2, (top + bottom) / 2
    parts = [(left, top, across, bottom), (across, top, right, bottom), (left, top, right, down), (left, down, right, bottom)]
    parts += [(x, y, x + width, y + height) for x, y, width, height in (group["bounding"] for group in workflow["groups"])]
    for x0, y0, x1, y1 in parts:
        covered = sum(max(0, min(x1, b[2]) - max(x0, b[0])) * max(0, min(y1, b[3]) - max(y0, b[1])) for b in boxes)
        assert covered > (x1 - x0) * (y1 - y0) / 3


@each_graph
def test_wires_run_with_the_data(graph):
    nodes = {node["id"]: node for node in graph["nodes"]}
    assert wires(graph)
    assert not [wire for wire, _, (origin, target) in wires(graph) if box(nodes[origin])[2] > box(nodes[target])[0]]


@each_workflow
def test_pictures_have_room_in_nodes_2(workflow):
    pictures = [node for node in workflow["nodes"] if node["type"] in PICTURES]
    assert len(pictures) > 2
    for a, b in combinations(pictures, 2):
        assert a["pos"][0] != b["pos"][0] or abs(a["pos"][1] - b["pos"][1]) >= PITCH


@each_workflow
def test_parts_are_named_for_what_they_are(workflow):
    titles = [name(node) for node in workflow["nodes"] if node["type"] == "Parts2WholeLoadPart"]
    assert {title.rstrip(" 123") for title in titles} <= {"Face", "Hair", "Top", "Trousers", "Shoes"}
    assert len({*titles}) == len(titles)
    assert titles or [node for node in workflow["nodes"] if node["type"] == "Parts2WholePhotoToParts"]


@each_workflow
def test_notes_are_short_and_need_no_terminal(workflow):
    notes = [node["widgets_values"][0] for node in workflow["nodes"] if node["type"] == "MarkdownNote"]
    assert notes and all(len(note.split()) <= MOST_WORDS for note in notes)
    assert not [note for note in notes if any(word in note for word in ("python", "pip ", "git ", "terminal"))]
