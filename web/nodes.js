// How our nodes look: the colours of their links tell what they carry, where the palette does not name them, and a node that the
// editor fits to its slots is wide enough for its title.
import { app } from "../../scripts/app.js"

const LETTER = 7.5 // of a title, in pixels
const BESIDE = 60
const COLOURS = {
  P2W_PART: "#d9a066",
  P2W_PARTS: "#a5522d",
  P2W_APPEARANCE_ENCODER: "#00796b",
  P2W_APPEARANCE: "#1de9b6",
  P2W_POSE_GUIDER: "#b5bd2e",
  P2W_IMAGE_ATTENTION: "#5c6bc0",
  P2W_ATTRIBUTION: "#e91e63",
  P2W_GRID: "#9c27b0",
  P2W_LEVELS: "#37799b",
  P2W_CROP: "#5fd22d",
}

function paint() {
  for (const [type, colour] of Object.entries(COLOURS)) {
    // Of a palette that does not name them, the editor makes all types plain.
    app.canvas.default_connection_color_byType[type] ||= colour
    LGraphCanvas.link_type_colors[type] ||= colour
    const variable = `--color-datatype-${type}` // of Nodes 2.0
    if (!document.documentElement.style.getPropertyValue(variable)) {
      document.documentElement.style.setProperty(variable, colour)
    }
  }
  app.canvas.setDirty(true, true)
}

app.registerExtension({
  name: "Parts2Whole.Nodes",
  setup() {
    paint()
    app.ui.settings.addEventListener?.("Comfy.ColorPalette.change", () => setTimeout(paint, 500))
  },
  afterConfigureGraph: paint,
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("Parts2Whole")) return
    const computeSize = node.computeSize
    node.computeSize = function (...given) {
      const size = computeSize.apply(this, given)
      size[0] = Math.max(size[0], LETTER * String(this.title).length + BESIDE)
      return size
    }
  },
})
