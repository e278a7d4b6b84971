// Shows on a node what it was warned of, until it runs again: see attention/patch/host/warnings.py. The text is the editor's own
// preview of a node's progress text. Of a node that is not in sight, in a closed subgraph or in app mode, a toast says it once.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const SIGN = "⚠ "
const WIDGET = "$$node-text-preview"
const LINE = 16 // of the text, in pixels
const LETTER = 5.5
const MOST = 300 // letters of a toast
const said = new Map() // by the id that the server calls a node by: 5, or 19:5 where 19 is a subgraph
const toasted = new Map() // by the same, the lines that were
const shown = new WeakMap() // by the node: other packs show texts of theirs by the same means

/** The node that the server calls so; null where there is none. */
function find(id) {
  let graph = app.rootGraph ?? app.graph
  let node = null
  for (const part of id.split(":")) {
    node = graph?.getNodeById(Number(part)) ?? graph?.getNodeById(part) ?? null
    graph = node?.subgraph
  }
  return node
}

function written(lines) {
  return lines.map((line) => SIGN + line[0].toUpperCase() + line.slice(1)).join("\n")
}

function textOf(node) {
  return node.widgets?.find((widget) => widget.name === WIDGET)
}

function fit(node) {
  node.setSize([Math.max(node.size[0], node.computeSize()[0]), node.computeSize()[1]])
  node.setDirtyCanvas(true, true)
}

function show(node, lines) {
  const text = written(lines)
  if (textOf(node)?.value === text) return
  api.dispatchCustomEvent("progress_text", { nodeId: String(node.id), text })
  const widget = textOf(node)
  if (!widget) return
  shown.set(node, text)
  const rows = () => lines.reduce((sum, line) => sum + Math.ceil((line.length * LETTER) / (node.size[0] - 60)), 0)
  widget.options.getMinHeight = () => Math.min(32 + LINE * rows(), 216)
  fit(node)
}

function hide(node) {
  const widget = textOf(node)
  if (!widget || widget.value !== shown.get(node)) return
  shown.delete(node)
  widget.onRemove?.()
  node.widgets.splice(node.widgets.indexOf(widget), 1)
  fit(node)
}

function showAll() {
  const texts = new Map()
  for (const [id, lines] of said) {
    const node = find(id)
    if (node && node.graph === app.canvas.graph) texts.set(node, lines)
  }
  for (const node of app.canvas.graph?.nodes ?? []) {
    if (texts.has(node)) show(node, texts.get(node))
    else hide(node)
  }
}

function toast(id, lines) {
  const node = find(id)
  if (!node || (node.graph === app.canvas.graph && app.canvas.canvas.checkVisibility())) return
  for (const line of lines.filter((line) => !toasted.get(id)?.includes(line))) {
    const detail = line[0].toUpperCase() + line.slice(1, MOST) + (line.length > MOST ? " …" : "")
    app.extensionManager.toast.add({ severity: "warn", summary: node.title, detail, life: 20000 })
  }
  toasted.set(id, lines)
}

function set(id, lines = []) {
  if (lines.length) {
    said.set(id, lines)
    toast(id, lines)
    showAll()
  } else if (said.delete(id)) {
    toasted.delete(id)
    showAll()
  }
}

app.registerExtension({
  name: "Parts2Whole.Warnings",
  setup() {
    let running = new Set() // what ran and has not been warned of again: a warning of another run
    api.addEventListener("executing", ({ detail }) => {
      for (const id of running) set(id)
      running = new Set(detail ? [String(detail.node ?? detail)].filter((id) => said.has(id)) : [])
    })
    api.addEventListener("parts2whole.warnings", ({ detail }) => {
      running.delete(String(detail.node))
      set(String(detail.node), detail.texts)
    })
    api.addEventListener("executed", ({ detail }) => {
      // Of our nodes the host keeps it with the output, also in its cache.
      const id = String(detail.node)
      if (find(id)?.type.startsWith("Parts2Whole")) set(id, detail.output?.parts2whole_warnings)
    })
    app.canvas.canvas.addEventListener("litegraph:set-graph", () => setTimeout(showAll))
  },
  afterConfigureGraph() {
    said.clear() // another workflow
    toasted.clear()
  },
})
