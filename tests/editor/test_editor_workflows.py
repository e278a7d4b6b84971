"""Every workflow in the real editor, in a real browser."""

import json

import pytest
from harness.editor import (
    RUN_ENDED,
    SCREENSHOTS,
    WAIT,
    errors_of_ours,
    open_workflow,
    show_all,
    wait_until,
    would_queue,
)
from harness.host import ROOT

pytestmark = pytest.mark.slow

WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_opens_and_would_queue_what_the_api_file_says(page, name):
    before = len(errors_of_ours(page))
    prompt = open_workflow(page, name)
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    for node in api.values():
        node.pop("_meta", None)
    assert prompt == api
    types = page.evaluate("app.graph._nodes.map(node => node.type)")
    known = page.evaluate("Object.keys(LiteGraph.registered_node_types)")
    assert {*types} <= {*known}
    show_all(page, SCREENSHOTS / f"{name}.png")
    assert errors_of_ours(page)[before:] == []


@pytest.mark.parametrize("name", ["detail", "upscale", "from_photos"])
def test_a_bypassed_second_pass_leaves_the_first_picture(page, name):
    _, again = json.loads((ROOT / "workflows" / f"{name}.json").read_text())["definitions"]["subgraphs"]
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    second = {str(node["id"]) for node in again["nodes"]}
    assert api["18"]["class_type"] == "SaveImage" and api["18"]["inputs"]["images"][0] in second
    open_workflow(page, name)
    page.evaluate("id => app.graph.nodes.find(node => node.type === id).mode = 4", again["id"])  # as Ctrl+B does
    prompt = would_queue(page)
    assert prompt["18"]["inputs"]["images"] == ["17", 0] and api["17"]["class_type"] == "VAEDecode"
    assert {*prompt} == {*api} - second


@pytest.mark.parametrize("name", ["paper_doll", "attribution", "outfit_grid"])
def test_run_draws_a_picture_that_is_seen_on_the_page(page, name):
    open_workflow(page, name)
    page.evaluate("app.queuePrompt(0)")
    wait_until(page, RUN_ENDED)
    show_all(page, SCREENSHOTS / f"{name}_run.png")  # the editor loads a picture when its node is in sight
    page.wait_for_function(
        "app.graph._nodes.filter(node => node.type === 'SaveImage').every(node => node.imgs?.length && node.imgs[0].naturalWidth)",
        timeout=WAIT,
    )
    size = page.evaluate(
        "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])"
        "(app.graph._nodes.find(node => node.type === 'SaveImage').imgs[0])"
    )
    assert size == [256, 384]
    page.wait_for_function(
        "app.graph._nodes.filter(node => /Show|Preview|Sheet/.test(node.type)).every(node => node.imgs?.length)", timeout=WAIT
    )
    page.wait_for_timeout(1000)
    page.screenshot(path=SCREENSHOTS / f"{name}_run.png")


def test_an_app_changes_a_part_and_draws_it(page):
    open_workflow(page, "paper_doll")
    page.keyboard.press("Alt+m")
    labels = page.locator("body")
    for label in ("Face", "Hair", "Top", "Trousers", "Shoes", "Pose", "prompt", "seed", "strength of the parts"):
        labels.get_by_text(label, exact=True).first.wait_for(timeout=WAIT, state="attached")
    page.evaluate("""() => {
        const top = app.rootGraph.nodes.find(node => node.title === 'Top')
        top.widgets.find(widget => widget.name === 'image').value = 'doll_top_2.png'
    }""")
    page.get_by_text("Run", exact=True).last.click()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 256 && image.width > 200)", timeout=WAIT)
    drawn = page.evaluate("fetch('/api/history?max_items=1').then(response => response.json())")
    entry, = drawn.values()
    assert entry["prompt"][2]["4"]["inputs"]["image"] == "doll_top_2.png"
    page.screenshot(path=SCREENSHOTS / "app.png")
