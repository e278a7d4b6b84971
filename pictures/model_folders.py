"""What users choose by name: files and folders below the folders in which the host keeps them."""

from __future__ import annotations

import os
from collections.abc import Callable

from .part import escaped

# What a list says where it would be empty. The editor shows an empty one as "undefined", and refuses it as a missing connection.
NONE_FOUND = "none found"


def names_below(roots: list[str], wanted: Callable[[str], bool]) -> list[str]:
    """Names of what is wanted, relative to its root, with forward slashes.

    wanted: whether the file or folder at a path is one
    """
    return sorted(_found(roots, wanted))


def choices(names: list[str], where: str) -> list[str]:
    """What a node's list offers: the names, or that there are none.

    where: the folder that users put files into, for example `models/human_parsing`
    """
    return names or [f"{NONE_FOUND} in {where}"]


def path_below(name: str, roots: list[str], wanted: Callable[[str], bool], what: str, mend: str) -> str:
    """The full path of a name that `names_below` lists; where roots share it, of the first.

    what, mend: for the error, what was looked for and what to do
    raises: FileNotFoundError for any other name, that names the roots
    """
    path = _found(roots, wanted).get(name) if isinstance(name, str) else None
    if path is None and isinstance(name, str) and name.startswith(NONE_FOUND):
        raise FileNotFoundError(f"No {what} was found in {' or '.join(roots)}. {mend}")
    if path is None:
        raise FileNotFoundError(f"No {what} '{escaped(str(name))}' in {' or '.join(roots)}. {mend}")
    return path


def _found(roots: list[str], wanted: Callable[[str], bool]) -> dict[str, str]:
    """The paths by their names. Does not look into what is wanted, nor into a link to an ancestor or to where another led."""
    found = {}
    for root in roots:
        followed = {os.path.realpath(root)}
        for folder, subfolders, files in os.walk(root, followlinks=True):
            here = os.path.realpath(folder)
            for name in [*subfolders, *files]:
                path = os.path.join(folder, name)
                if wanted(path):
                    found.setdefault(os.path.relpath(path, root).replace(os.sep, "/"), path)
                    if name in subfolders:
                        subfolders.remove(name)
            for name in sorted(subfolders):
                target = os.path.realpath(os.path.join(folder, name))
                if target == os.path.join(here, name):
                    continue
                if target in followed or _is_within(here, target):
                    subfolders.remove(name)
                followed.add(target)
    return found


def _is_within(folder: str, ancestor: str) -> bool:
    try:
        return os.path.commonpath((folder, ancestor)) == ancestor
    except ValueError:  # another drive
        return False
