"""Where the real editor shows what a run warned of."""


import pytest
from harness.editor import SCREENSHOTS, SET, WAIT, open_workflow, queue

pytestmark = pytest.mark.slow


TOLD = """() => Object.fromEntries(app.canvas.graph.nodes.flatMap(node => (node.widgets ?? [])
    .filter(widget => String(widget.value).startsWith('⚠')).map(widget => [node.title, widget.value])))"""


def test_a_warning_stands_on_its_node_until_it_is_mended_and_a_toast_says_it_of_a_closed_subgraph(page):
    open_workflow(page, "paper_doll")
    page.evaluate("app.rootGraph.nodes.find(node => node.subgraph).widgets.find(widget => widget.name === 'steps').value = 2")
    page.evaluate(SET, ["LoadImage", "image", "doll_face.png"])
    queue(page)
    page.locator(".p-toast-message").filter(has_text="The pose picture is another kind of picture").wait_for(timeout=WAIT)
    assert page.evaluate(TOLD) == {}
    page.evaluate("""() => {
        const node = app.graph.nodes.find(node => node.subgraph)
        app.canvas.openSubgraph(node.subgraph, node)
    }""")
    page.wait_for_timeout(1000)
    told = page.evaluate(TOLD)
    assert list(told) == ["Apply Pose Guider"] and "The pose picture is another kind of picture" in told["Apply Pose Guider"]
    page.screenshot(path=SCREENSHOTS / "warning.png")
    page.evaluate(SET, ["LoadImage", "image", "doll_pose.png"])
    queue(page)
    assert page.evaluate(TOLD) == {}


def test_a_text_of_another_pack_stays_where_ours_goes(page):
    """Another pack's own warning, by the same means of the editor."""
    page.evaluate("""async () => {
        app.graph.clear()
        for (const id of [1, 2]) {
            const node = LiteGraph.createNode('Parts2WholeLoadPart')
            node.id = id
            app.graph.add(node)
        }
        window.api = (await import('/scripts/api.js')).api
        api.dispatchCustomEvent('progress_text', {nodeId: '1', text: '⚠ theirs'})
    }""")
    texts = """texts => {
        api.dispatchCustomEvent('parts2whole.warnings', {node: '2', texts})
        const text = node => node.widgets.find(widget => widget.name === '$$node-text-preview')?.value
        return app.graph.nodes.map(text)
    }"""
    assert page.evaluate(texts, ["ours."]) == ["⚠ theirs", "⚠ Ours."]
    assert page.evaluate(texts, []) == ["⚠ theirs", None]
