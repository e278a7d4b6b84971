"""The pictures that the pack's first workflow names, where the host looks for pictures: its input folder."""

from __future__ import annotations

import logging
import shutil
import tempfile
from pathlib import Path

import folder_paths

PICTURES = Path(__file__).resolve().parents[1] / "workflows" / "input"


def copy_example_pictures():
    """Copies those that are not there. A workflow of the template browser cannot bring pictures of its own, and core's Load
    Image knows none in a subfolder.
    """
    folder = Path(folder_paths.get_input_directory())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        missing = [picture for picture in PICTURES.glob("*.png") if not (folder / picture.name).exists()]
        if missing:
            # In a folder of our own first: a link that lies ready under a known name would be written through.
            with tempfile.TemporaryDirectory(dir=folder) as ours:
                for picture in missing:
                    shutil.copyfile(picture, Path(ours, picture.name)).replace(folder / picture.name)
    except OSError as error:  # a read-only input folder must not keep the nodes from loading
        logging.warning("Parts2Whole: the example pictures could not be copied to %s (%s).", folder, error)
