"""Every workflow in the real editor, in a real browser: make editor. Chromium is the one that CHROMIUM names, or on the path."""

import json
from pathlib import Path

import pytest
from harness.editor import WAIT, chromium, open_editor, picture_node
from harness.host import ROOT
from harness.server import ComfyServer
from PIL import Image

pytestmark = pytest.mark.slow

WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
SCREENSHOTS = ROOT / "output" / "editor"
# What the editor itself logs in a fresh installation without a network.
NOT_OURS = ("favicon", "ERR_", "Failed to load resource", "Failed to fetch")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ComfyServer(tmp_path_factory.mktemp("editor"), "--cpu", "--use-pytorch-cross-attention") as server:
        yield server


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture
def page(server, browser):
    page = open_editor(browser, server.address)
    yield page
    page.close()


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


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_opens_and_would_queue_what_the_api_file_says(page, name):
    before = len(page.errors)
    prompt = open_workflow(page, name)
    api = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text())
    for node in api.values():
        node.pop("_meta", None)
    assert prompt == api
    types = page.evaluate("app.graph._nodes.map(node => node.type)")
    known = page.evaluate("Object.keys(LiteGraph.registered_node_types)")
    assert {*types} <= {*known}
    show_all(page, SCREENSHOTS / f"{name}.png")
    assert not [error for error in page.errors[before:] if not any(word in error for word in NOT_OURS)]


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


RUN_ENDED = """async () => {
    const history = await (await fetch('/api/history?max_items=1')).json()
    const queue = await (await fetch('/api/queue')).json()
    return Object.values(history)[0]?.status?.completed && !queue.queue_running.length && !queue.queue_pending.length
}"""


def queue(page):
    """Runs what is open, to its end."""
    before = page.evaluate("fetch('/api/history').then(response => response.json()).then(Object.keys)")
    page.evaluate("app.queuePrompt(0)")
    page.wait_for_function(
        "async count => Object.keys(await (await fetch('/api/history')).json()).length > count", arg=len(before), timeout=WAIT,
        polling=500,
    )
    page.wait_for_function(RUN_ENDED, timeout=WAIT, polling=500)
    page.wait_for_timeout(1000)


SET = """([type, name, value]) => {
    const walk = graph => graph.nodes.forEach(node => {
        if (node.type === type) node.widgets.find(widget => widget.name === name).value = value
        if (node.subgraph) walk(node.subgraph)
    })
    walk(app.rootGraph)
}"""
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
            .find(canvas => canvas.width === 128 && canvas.height === 192).getBoundingClientRect()
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


@pytest.mark.parametrize("name", ["paper_doll", "attribution", "outfit_grid"])
def test_run_draws_a_picture_that_is_seen_on_the_page(page, name):
    open_workflow(page, name)
    page.evaluate("app.queuePrompt(0)")
    page.wait_for_function(RUN_ENDED, timeout=WAIT, polling=1000)
    show_all(page, SCREENSHOTS / f"{name}_run.png")  # the editor loads a picture when its node is in sight
    page.wait_for_function(
        "app.graph._nodes.filter(node => node.type === 'SaveImage').every(node => node.imgs?.length && node.imgs[0].naturalWidth)",
        timeout=WAIT,
    )
    size = page.evaluate(
        "(({naturalWidth, naturalHeight}) => [naturalWidth, naturalHeight])"
        "(app.graph._nodes.find(node => node.type === 'SaveImage').imgs[0])"
    )
    assert size == [128, 192]
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
        top.widgets.find(widget => widget.name === 'image').value = 'doll_upper_body_clothes_2.png'
    }""")
    page.get_by_text("Run", exact=True).last.click()
    page.wait_for_function("[...document.images].some(image => image.naturalWidth === 128 && image.width > 200)", timeout=WAIT)
    drawn = page.evaluate("fetch('/api/history?max_items=1').then(response => response.json())")
    entry, = drawn.values()
    assert entry["prompt"][2]["4"]["inputs"]["image"] == "doll_upper_body_clothes_2.png"
    page.screenshot(path=SCREENSHOTS / "app.png")


def test_the_blueprints_are_in_the_node_search(page):
    page.evaluate("app.graph.clear()")
    page.mouse.dblclick(900, 600)
    page.wait_for_function("document.activeElement?.tagName === 'INPUT'", timeout=WAIT)  # what is typed before is lost
    page.keyboard.type("compose from parts")
    for name in ("Compose from parts (Parts2Whole)", "Compose from parts (any checkpoint)"):
        page.get_by_text(name, exact=True).first.wait_for(timeout=WAIT)
    page.keyboard.press("Enter")
    page.wait_for_timeout(1500)
    node, = page.evaluate(
        "app.graph._nodes.map(node => [node.title, node.inputs.filter(input => input.type === 'P2W_PART').length])"
    )
    assert node == ["Compose from parts (Parts2Whole)", 6]


WORDS = [
    "reference", "face", "mask", "character", "consistency", "identity", "person", "ip-adapter", "outfit", "clothes", "try-on",
    "参考", "衣服", "人物", "换装",
]


def test_what_people_type_finds_our_nodes_among_the_first(page):
    """face and mask are words in the names of many nodes of the host, which come first."""
    found = page.evaluate("""words => {
        const {$pinia} = document.querySelector('#vue-app').__vue_app__.config.globalProperties
        const {nodeSearchService} = $pinia._s.get('nodeDef')
        return words.map(word => nodeSearchService.searchNode(word).map(node => node.python_module))
    }""", WORDS)
    ranks = {
        word: next((i for i, module in enumerate(modules) if "parts2whole" in module), None) for word, modules in zip(WORDS, found)
    }
    assert all(rank is not None and rank < (20 if word in ("face", "mask") else 5) for word, rank in ranks.items()), ranks


def test_links_have_our_colours_under_every_palette(page):
    colours = "[LGraphCanvas.link_type_colors, app.canvas.default_connection_color_byType].map(each => each.P2W_PART)"
    for palette in ("light", "dark"):
        page.evaluate(f"app.extensionManager.setting.set('Comfy.ColorPalette', '{palette}')")
        page.wait_for_timeout(1500)
        assert page.evaluate(colours) == ["#d9a066"] * 2
        style = "getComputedStyle(document.documentElement).getPropertyValue('--color-datatype-P2W_PARTS')"
        assert page.evaluate(style) == "#a5522d"


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
    page.wait_for_function(
        "fetch('/api/view?type=input&filename=red_shirt.png').then(response => response.ok)", timeout=WAIT, polling=500
    )
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


def test_the_help_page_of_a_node_is_served(page):
    text = page.evaluate(
        "fetch('/extensions/comfyui-parts2whole/docs/Parts2WholeApply.md').then(response => response.text())"
    )
    assert text.startswith("# Apply Parts2Whole")


def test_the_editor_has_the_texts_in_both_languages(page):
    texts = page.evaluate("fetch('/api/i18n').then(response => response.json())")
    assert texts["zh"]["nodeDefs"]["Parts2WholeApply"]["display_name"] == "应用Parts2Whole"
    assert texts["en"]["nodeDefs"]["Parts2WholeApply"]["display_name"] == "Apply Parts2Whole"


def test_every_node_can_be_added_and_seen(page, server):
    """Its picture lands in output/editor/nodes; make node-pictures takes those in web/docs/nodes so."""
    definitions = server.get("/object_info")
    names = [name for name, definition in definitions.items() if definition["python_module"].endswith("comfyui-parts2whole")]
    assert len(names) > 20
    before = len(page.errors)
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
    assert not [error for error in page.errors[before:] if not any(word in error for word in NOT_OURS)]
