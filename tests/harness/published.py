"""The pack as a user of the Comfy registry gets it."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path

from harness.host import ROOT


def publish(target: Path):
    """Copies what comfy-cli would pack: all files that are not ignored by .gitignore or .comfyignore."""
    with tempfile.TemporaryDirectory() as git:  # of its own, so that a checkout is not needed
        subprocess.run(["git", "init", "--quiet", "--bare", git], check=True)
        listed = subprocess.run(
            ["git", "--git-dir", git, "--work-tree", ROOT, "ls-files", "--others", "-z", "--exclude-per-directory=.gitignore",
             "--exclude-from=.comfyignore"], cwd=ROOT, check=True, capture_output=True, text=True,
        )
    for name in listed.stdout.rstrip("\0").split("\0"):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, target / name)
