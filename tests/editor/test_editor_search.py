"""What the real editor's searches and colours make of ours."""


import pytest
from harness.editor import WAIT

pytestmark = pytest.mark.slow


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


def test_the_help_page_of_a_node_is_served(page):
    text = page.evaluate(
        "fetch('/extensions/comfyui-parts2whole/docs/Parts2WholeApply.md').then(response => response.text())"
    )
    assert text.startswith("# Apply Parts2Whole")


def test_the_editor_has_the_texts_in_both_languages(page):
    texts = page.evaluate("fetch('/api/i18n').then(response => response.json())")
    assert texts["zh"]["nodeDefs"]["Parts2WholeApply"]["display_name"] == "应用Parts2Whole"
    assert texts["en"]["nodeDefs"]["Parts2WholeApply"]["display_name"] == "Apply Parts2Whole"
