// Shows what a file of the wardrobe holds as soon as it is chosen in Load Appearance: Save Appearance writes a picture beside it.
import { app } from "../../scripts/app.js"
import { api } from "../../scripts/api.js"

const chosen = new WeakMap() // by the node, the file that was chosen last

function show(node, file) {
  chosen.set(node, file)
  const parts = String(file).replace(/\.safetensors$/, ".png").split("/")
  const query = new URLSearchParams({
    filename: parts.pop(), subfolder: ["wardrobe", ...parts].join("/"), type: "output", rand: String(Math.random()),
  })
  const picture = new Image()
  picture.onload = () => {
    if (chosen.get(node) !== file) return // another was chosen meanwhile
    node.imgs = [picture]
    node.setSize([node.size[0], Math.max(node.size[1], 300)])
    node.setDirtyCanvas(true, true)
  }
  picture.onerror = () => {
    if (chosen.get(node) !== file) return
    node.imgs = undefined // an older file, or one that was brought without its picture
    node.setDirtyCanvas(true, true)
  }
  if (String(file).endsWith(".safetensors")) picture.src = api.apiURL(`/view?${query}`)
  else picture.onerror()
}

app.registerExtension({
  name: "Parts2Whole.Wardrobe",
  nodeCreated(node) {
    if (node.comfyClass !== "Parts2WholeLoadAppearance") return
    const widget = node.widgets?.find((each) => each.name === "file")
    if (!widget) return
    const before = widget.callback
    widget.callback = function (value, ...rest) {
      before?.call(this, value, ...rest)
      show(node, value)
    }
    setTimeout(() => show(node, widget.value)) // after a workflow has set it
  },
})
