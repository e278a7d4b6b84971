"""The real editor in a real browser. Chromium is the one that CHROMIUM names, or on the path."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness.host import ROOT

WAIT = 120_000
SCREENSHOTS = ROOT / "output" / "editor"
# What the editor itself logs in a fresh installation without a network.
NOT_OURS = ("favicon", "ERR_", "Failed to load resource", "Failed to fetch")
# Gives a widget of every node of a type a value, in subgraphs too: [type, widget, value].
SET = """([type, name, value]) => {
    const walk = graph => graph.nodes.forEach(node => {
        if (node.type === type) node.widgets.find(widget => widget.name === name).value = value
        if (node.subgraph) walk(node.subgraph)
    })
    walk(app.rootGraph)
}"""
RUN_ENDED = """async () => {
    const history = await (await fetch('/api/history?max_items=1')).json()
    const queue = await (await fetch('/api/queue')).json()
    return Object.values(history)[0]?.status?.completed && !queue.queue_running.length && !queue.queue_pending.length
}"""


@contextmanager
def chromium() -> Iterator:
    """playwright's browser."""
    from playwright.sync_api import sync_playwright

    path = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


def open_editor(browser, address: str):
    """A page with the editor in it, ready. page.errors: what it logs as errors, from now on"""
    page = browser.new_page(viewport={"width": 1900, "height": 1100})
    page.errors = []
    page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.goto(f"http://{address}/")
    page.wait_for_function("window.app && app.graph && app.canvas && app.extensionManager", timeout=WAIT)
    page.wait_for_timeout(3000)
    page.keyboard.press("Escape")
    return page


def picture_node(page, name: str, path: Path):
    """Adds the node, alone, as wide as its names and values need, and takes its picture."""
    x, y, width, height = page.evaluate(
        """async name => {
            // Not clear(): it gives the same number again, and the editor keeps pictures and values by number.
            app.graph._nodes.slice().forEach(node => app.graph.remove(node))
            const node = LiteGraph.createNode(name)
            node.pos = [0, 0]
            app.graph.add(node)
            const widgets = (node.widgets ?? []).filter(widget => ['combo', 'text'].includes(widget.type))
            const lengths = widgets.map(widget => `${widget.label ?? widget.name}${widget.value}`.length)
            node.setSize([Math.max(node.size[0], 260, 7 * Math.max(...lengths, 0) + 70), node.size[1]])
            await new Promise(resolve => setTimeout(resolve, 400))
            app.canvas.ds.scale = 1.25
            app.canvas.ds.offset = [500, 250]
            app.canvas.setDirty(true, true)
            const {left, top} = app.canvas.canvas.getBoundingClientRect()
            return [left + 500 * 1.25, top + 220 * 1.25, node.size[0] * 1.25, (node.size[1] + 30) * 1.25]
        }""",
        name,
    )
    page.wait_for_timeout(400)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path, clip={"x": x - 12, "y": y - 1, "width": width + 24, "height": height + 13})


def open_workflow(page, name: str) -> dict:
    """Opens a workflow as the template browser does and returns what the editor would queue."""
    page.evaluate(
        """async name => {
            const packs = await (await fetch('/api/workflow_templates')).json()
            const pack = Object.keys(packs).find(pack => packs[pack].includes(name))
            const file = await fetch(`/api/workflow_templates/${pack}/${name}.json`)
            await app.loadGraphData(await file.json())
        }""",
        name,
    )
    page.wait_for_timeout(2000)
    return would_queue(page)


def would_queue(page) -> dict:
    """What the editor would queue of the open workflow."""
    prompt = page.evaluate("app.graphToPrompt().then(result => result.output)")
    # The editor puts the subgraph's number before those of the nodes in it.
    plain = {id.split(":")[-1]: node for id, node in prompt.items()}
    for node in plain.values():
        node.pop("_meta", None)
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                node["inputs"][name] = [value[0].split(":")[-1], value[1]]
    return plain


def wait_until(page, script: str, argument=None):
    """Waits for what a script promises. To playwright's wait_for_function any promise is true at once."""
    deadline = time.monotonic() + WAIT / 1000
    while not page.evaluate(script, argument):
        assert time.monotonic() < deadline, f"not in {WAIT / 1000:.0f} s: {script}"
        page.wait_for_timeout(500)


def queue(page):
    """Runs what is open, to its end."""
    before = page.evaluate("fetch('/api/history').then(response => response.json()).then(Object.keys)")
    page.evaluate("app.queuePrompt(0)")
    wait_until(page, "async count => Object.keys(await (await fetch('/api/history')).json()).length > count", len(before))
    wait_until(page, RUN_ENDED)
    page.wait_for_timeout(1000)


def show_all(page, path: Path):
    """A picture of the whole graph, large enough for the editor to draw its texts."""
    page.keyboard.press("Escape")
    page.set_viewport_size({"width": 3600, "height": 1960})
    page.wait_for_timeout(1000)
    page.evaluate("""() => {
        document.querySelectorAll('.p-toast, [data-testid=error-overlay], .minimap-main-container').forEach(each => each.remove())
        const boxes = app.graph._groups.map(group => [...group.pos, group.pos[0] + group.size[0], group.pos[1] + group.size[1]])
        const [left, top] = [0, 1].map(i => Math.min(...boxes.map(box => box[i])))
        const [right, bottom] = [2, 3].map(i => Math.max(...boxes.map(box => box[i])))
        const scale = Math.min((innerWidth - 120) / (right - left), (innerHeight - 140) / (bottom - top))
        app.canvas.ds.scale = scale
        app.canvas.ds.offset = [-left + 70 / scale, -top + 80 / scale]
        app.canvas.setDirty(true, true)
    }""")
    page.wait_for_timeout(2000)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=path)


def errors_of_ours(page) -> list[str]:
    """What the page has logged as errors, without what the editor logs by itself."""
    return [error for error in page.errors if not any(word in error for word in NOT_OURS)]
