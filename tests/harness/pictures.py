"""Pictures in the host's input folder."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from PIL import Image


def save(image: Image.Image, name: str = "picture.png", **options) -> str:
    """Saves a picture there and returns its name."""
    path = Path(folder_paths.get_input_directory(), name)
    path.parent.mkdir(exist_ok=True)
    image.save(path, **options)
    return name
