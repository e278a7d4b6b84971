from __future__ import annotations

from comfy_api.latest import io
from comfy_execution.graph_utils import ExecutionBlocker

from ..pictures.part import require_finite
from ..pictures.people import MOST_PEOPLE, people_in_frame, read_places
from .node import Node
from .sockets import POSE


class Parts2WholePeople(Node):
    @classmethod
    def define_schema(cls):
        return io.Schema(
            node_id="Parts2WholePeople",
            display_name="People in One Frame",
            category=POSE,
            description="Puts the poses of several people into one frame, and gives each person's region, so that everyone wears "
            "parts of their own.",
            search_aliases=["two people", "couple", "group", "regional", "multiple characters", "多人", "双人"],
            inputs=[
                io.Autogrow.Input(
                    "poses",
                    template=io.Autogrow.TemplatePrefix(
                        io.Image.Input(
                            "pose", tooltip="Raw IUV DensePose of one person; later ones stand in front. A single picture may show "
                            "several people who do not touch: they are numbered from left to right.",
                        ),
                        prefix="pose", min=0, max=MOST_PEOPLE,
                    ),
                ),
                io.Int.Input("width", default=768, min=16, max=16384, step=8, tooltip="Width of the frame in pixels."),
                io.Int.Input("height", default=512, min=16, max=16384, step=8, tooltip="Height of the frame in pixels."),
                io.String.Input(
                    "places", default="", optional=True,
                    tooltip="Where each pose stands: left edge and width as shares of the frame's width, such as '0 0.5, 0.4 0.6'. "
                    "Poses keep their shape and stand on the lower edge. Empty: side by side.",
                ),
                io.Float.Input(
                    "grow", default=1.0, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="How far a region reaches beyond its person's body, as a share of the frame's height; no further than "
                    "to places that are nearer to another person. 1: the whole frame is divided.",
                ),
                io.Float.Input(
                    "soft", default=0.0, min=0.0, max=1.0, step=0.01, optional=True, advanced=True,
                    tooltip="Over which share of the frame's height a region rises from its edge to 1. On its person's body it is "
                    "1, and in other people's regions 0.",
                ),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.unique_id],
            outputs=[
                io.Image.Output(display_name="IUV", tooltip="All poses, for Apply Pose Guider."),
                *(
                    io.Mask.Output(
                        display_name=f"person {number}",
                        tooltip="Their region, for Apply Parts2Whole with region_mode centre, and for text by mask.",
                    )
                    for number in range(1, MOST_PEOPLE + 1)
                ),
            ],
        )

    @classmethod
    def execute(cls, poses, width, height, places="", grow=1.0, soft=0.0) -> io.NodeOutput:
        given = [pose for pose in poses.values() if pose is not None]
        for pose in given:
            require_finite(pose, "The pose picture")
        iuv, regions = people_in_frame(given, width, height, read_places(places), grow, soft)
        missing = (
            f"People in One Frame has {len(regions)} people. Connect one more pose, or nothing to the outputs after that of person "
            f"{len(regions)}."
        )
        if cls.hidden is not None and _last_used(cls.hidden) > len(regions):
            raise ValueError(missing)
        # A later run may use an output that was kept. Only the editor would hear of this.
        return io.NodeOutput(iuv, *regions, *[ExecutionBlocker(missing)] * (MOST_PEOPLE - len(regions)))


def _last_used(hidden) -> int:
    """The number of the last output that the prompt uses."""
    inputs = (value for node in hidden.prompt.values() for value in node["inputs"].values())
    return max((link[1] for link in inputs if isinstance(link, list) and link[:1] == [hidden.unique_id]), default=0)
