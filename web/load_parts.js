// Load Parts: a button that uploads several pictures at once, and dropping them on the node. Their names come into its text.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

async function upload(file) {
  const body = new FormData()
  body.append("image", file)
  const answer = await api.fetchApi("/upload/image", { method: "POST", body })
  if (!answer.ok) throw new Error(`${file.name}: ${answer.status} ${answer.statusText}`)
  const { name, subfolder } = await answer.json()
  return subfolder ? `${subfolder}/${name}` : name
}

/** The chosen pictures, before the node has run. */
function preview(node, names) {
  node.imgs = names.map((name) => {
    const parts = name.split("/")
    const picture = new Image()
    picture.onload = () => node.setDirtyCanvas(true, true)
    const query = new URLSearchParams({ filename: parts.pop(), subfolder: parts.join("/"), type: "input" })
    picture.src = api.apiURL(`/view?${query}`)
    return picture
  })
  node.setSize([node.size[0], Math.max(node.size[1], 420)])
}

async function take(node, widget, files) {
  const pictures = [...files].filter((file) => file.type.startsWith("image/"))
  if (!pictures.length) return false
  try {
    const names = await Promise.all(pictures.map(upload))
    widget.value = names.join("\n")
    widget.callback?.(widget.value)
    preview(node, names)
  } catch (error) {
    app.extensionManager.toast.add({ severity: "error", summary: node.title, detail: String(error.message ?? error) })
  }
  return true
}

app.registerExtension({
  name: "Parts2Whole.LoadParts",
  nodeCreated(node) {
    if (node.comfyClass !== "Parts2WholeLoadParts") return
    const widget = node.widgets.find((each) => each.name === "images")
    const input = document.createElement("input")
    Object.assign(input, { type: "file", accept: "image/*", multiple: true })
    input.onchange = () => {
      const files = [...input.files]
      input.value = ""
      take(node, widget, files)
    }
    node.addWidget("button", "upload", "image", () => input.click(), { serialize: false }).label = "choose pictures to upload"
    node.onDragOver = (event) => [...(event.dataTransfer?.items ?? [])].some((item) => item.kind === "file")
    node.onDragDrop = (event) => take(node, widget, event.dataTransfer?.files ?? [])
  },
})
