"""The nodes in the real editor: their slots, and the pictures that are chosen, dropped, painted and shown."""

from pathlib import Path

import pytest
from harness.editor import SCREENSHOTS, WAIT, errors_of_ours, open_workflow, picture_node, queue, wait_until
from PIL import Image

pytestmark = pytest.mark.slow


def test_what_is_painted_on_a_cut_out_in_the_mask_editor_is_the_part_and_is_shown(page, server):
    open_workflow(page, "paper_doll")
    page.evaluate("app.rootGraph.nodes.find(node => node.subgraph).widgets.find(widget => widget.name === 'steps').value = 2")
    top = "app.graph.nodes.find(node => node.title === 'Top')"

    def shown_share() -> float:
        queue(page)
        (entry,) = page.evaluate("fetch('/api/history?max_items=1').then(response => response.json())").values()
        assert page.evaluate(f"{top}.imgs[0].src").count(entry["outputs"]["4"]["images"][0]["filename"])
        return entry["outputs"]["4"]["parts2whole_kept"][0]

    whole = shown_share()
    page.screenshot(path=SCREENSHOTS / "kept.png")
    page.evaluate(f"app.canvas.select({top})")
    page.evaluate("app.extensionManager.command.execute('Comfy.MaskEditor.OpenMaskEditor')")
    page.wait_for_timeout(4000)
    left, right, y = page.evaluate("""() => {
        const {x, y, width, height} = [...document.querySelectorAll('canvas')]
            .find(canvas => canvas.width === 256 && canvas.height === 384).getBoundingClientRect()
        return [x + width * .5, x + width * .55, y + height * .53]
    }""")
    page.mouse.move(left, y)
    page.mouse.down()
    page.mouse.move(right, y, steps=5)
    page.mouse.up()
    page.wait_for_timeout(800)
    page.get_by_role("button", name="Save").last.click()
    page.wait_for_function(f"{top}.widgets.find(widget => widget.name === 'image').value.startsWith('clipspace')", timeout=WAIT)
    page.wait_for_timeout(2000)
    strokes = shown_share()
    assert 0.005 < strokes < whole / 2, (strokes, whole)
    page.screenshot(path=SCREENSHOTS / "painted.png")


def test_slots_of_encode_part_labels_grow(page):
    page.evaluate("""() => {
        app.graph.clear()
        const labels = LiteGraph.createNode('Parts2WholeEncodeLabels')
        app.graph.add(labels)
    }""")
    page.wait_for_timeout(500)
    names = "app.graph._nodes.find(node => node.type === 'Parts2WholeEncodeLabels').inputs.map(input => input.name)"
    before = page.evaluate(names)
    page.evaluate("""() => {
        const part = LiteGraph.createNode('Parts2WholeLoadPart')
        app.graph.add(part)
        const labels = app.graph._nodes.find(node => node.type === 'Parts2WholeEncodeLabels')
        part.connect(0, labels, labels.inputs.findIndex(input => input.name.startsWith('parts.') && input.link == null))
    }""")
    page.wait_for_timeout(500)
    assert len(page.evaluate(names)) == len(before) + 1


def test_a_picture_is_uploaded_by_the_widget(page, server, tmp_path):
    Image.new("RGBA", (64, 96), (200, 30, 30, 255)).save(tmp_path / "red_shirt.png")
    open_workflow(page, "paper_doll")
    with page.expect_file_chooser() as chooser:
        page.evaluate("""() => {
            const node = app.graph._nodes.find(node => node.type === 'Parts2WholeLoadPart')
            node.widgets.find(widget => widget.name === 'upload').callback()
        }""")
    chooser.value.set_files(tmp_path / "red_shirt.png")
    page.wait_for_function(
        "app.graph._nodes.find(node => node.type === 'Parts2WholeLoadPart').widgets.find(w => w.name === 'image').value"
        " === 'red_shirt.png'", timeout=WAIT,
    )
    wait_until(page, "fetch('/api/view?type=input&filename=red_shirt.png').then(response => response.ok)")
    assert (Path(server.base) / "input" / "red_shirt.png").read_bytes() == (tmp_path / "red_shirt.png").read_bytes()


def test_several_pictures_become_parts_by_one_button_or_by_dropping_them(page, server, tmp_path):
    for name in ("red_shoes.png", "my_face.png"):
        Image.new("RGB", (64, 96), "red").save(tmp_path / name)
    page.evaluate("app.graph.clear(); app.graph.add(LiteGraph.createNode('Parts2WholeLoadParts'))")
    widget = "app.graph.nodes[0].widgets.find(widget => widget.name === '{}')"
    with page.expect_file_chooser() as chooser:
        page.evaluate(widget.format("upload") + ".callback()")
    chooser.value.set_files([tmp_path / "red_shoes.png", tmp_path / "my_face.png"])
    page.wait_for_function(widget.format("images") + ".value === 'red_shoes.png\\nmy_face.png'", timeout=WAIT)
    assert (Path(server.base) / "input" / "my_face.png").is_file()
    page.evaluate("""async () => {
        const dropped = new DataTransfer()
        for (const name of ['dropped_1.png', 'dropped_2.png']) {
            const canvas = new OffscreenCanvas(20, 30)
            canvas.getContext('2d').fillRect(0, 0, 9, 9)
            dropped.items.add(new File([await canvas.convertToBlob({type: 'image/png'})], name, {type: 'image/png'}))
        }
        await app.graph.nodes[0].onDragDrop({dataTransfer: dropped})
    }""")
    assert page.evaluate(widget.format("images") + ".value") == "dropped_1.png\ndropped_2.png"


def test_what_a_file_of_the_wardrobe_holds_is_seen_when_it_is_chosen(page, server):
    folder = Path(server.base) / "output" / "wardrobe" / "mine"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "one.safetensors").touch()
    Image.new("RGB", (77, 50), "red").save(folder / "one.png")
    page.evaluate("app.graph.clear(); app.graph.add(LiteGraph.createNode('Parts2WholeLoadAppearance'))")
    page.evaluate("app.refreshComboInNodes()")
    page.evaluate("""() => {
        const widget = app.graph.nodes[0].widgets[0]
        widget.value = 'mine/one.safetensors'
        widget.callback(widget.value)
    }""")
    page.wait_for_function("app.graph.nodes[0].imgs?.[0].naturalWidth === 77", timeout=WAIT)

    # A picture that comes late is not shown for the file that was chosen meanwhile.
    Image.new("RGB", (55, 50), "blue").save(folder / "late.png")
    late = []
    page.route("**/view?filename=late.png*", lambda route: late.append(route))
    page.evaluate("""() => {
        const widget = app.graph.nodes[0].widgets[0]
        for (const name of ['late', 'one']) {
            widget.value = `mine/${name}.safetensors`
            widget.callback(widget.value)
        }
    }""")
    page.wait_for_timeout(500)
    late[0].continue_()
    page.wait_for_timeout(1000)
    assert len(late) == 1 and page.evaluate("app.graph.nodes[0].imgs[0].naturalWidth") == 77


def test_every_node_can_be_added_and_seen(page, server):
    """Its picture lands in output/editor/nodes; make node-pictures takes those in web/docs/nodes so."""
    definitions = server.get("/object_info")
    names = [name for name, definition in definitions.items() if definition["python_module"].endswith("comfyui-parts2whole")]
    assert len(names) > 20
    before = len(errors_of_ours(page))
    page.keyboard.press("Escape")
    page.evaluate("app.graph.clear()")
    for name in names:
        path = SCREENSHOTS / "nodes" / f"{name}.png"
        picture_node(page, name, path)
        shown = page.evaluate("Object.fromEntries((app.graph._nodes[0].widgets ?? []).map(each => [each.name, each.value]))")
        for kind in ("required", "optional"):
            for key, (_, *options) in definitions[name]["input"].get(kind, {}).items():
                if options and "default" in options[0] and not options[0].get("forceInput"):
                    assert shown[key] == options[0]["default"], (name, key)
        drawn = Image.open(path).convert("L").getcolors(maxcolors=100_000)
        assert len(drawn) > 30, f"{name} is not drawn"
    assert errors_of_ours(page)[before:] == []
