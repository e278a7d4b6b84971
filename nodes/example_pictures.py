"""The pictures that the pack's first workflow names, where the host looks for pictures: its input folder."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

import folder_paths

PICTURES = Path(__file__).resolve().parents[1] / "workflows" / "input"


def copy_example_pictures():
    """Copies those that are not there. A workflow of the template browser cannot bring pictures of its own."""
    folder = folder_paths.get_input_directory()
    try:
        os.makedirs(folder, exist_ok=True)
        for picture in PICTURES.glob("*.png"):
            target = os.path.join(folder, picture.name)
            if not os.path.exists(target):
                shutil.copyfile(picture, target + ".part")
                os.replace(target + ".part", target)
    except OSError as error:  # a read-only input folder must not keep the nodes from loading
        logging.warning("Parts2Whole: the example pictures could not be copied to %s (%s).", folder, error)
