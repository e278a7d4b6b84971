"""The real editor in a real browser. Chromium is the one that CHROMIUM names, or on the path."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

WAIT = 120_000


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
