"""The rooms of the pack: imports run down, the method knows only torch, and files are short. Read from the sources."""

import ast
import sys
from pathlib import Path

import pytest
from harness.host import ROOT

# Each room, and the rooms that it may import beside itself.
BELOW = {
    "nodes": {"sheets", "encoders", "attention/edit", "attention/patch", "pictures", "attention"},
    "sheets": {"encoders", "attention/patch", "pictures", "attention"},
    "encoders": {"attention/patch", "pictures", "attention"},
    "attention/edit": {"attention/patch", "attention"},
    "attention/patch": {"pictures", "attention"},
    "attention": set(),
    "pictures": set(),
}
# What is read of the host beyond its public API, some of it: attention/patch/host reads it, and nothing else does.
INTERNALS = {
    "activations_shape", "ad_params", "adm_channels", "backup", "clone_base_uuid", "conds", "context_window", "current_hooks",
    "current_patcher", "encode_adm", "first_stage_model", "forced_hooks", "get_tensor", "hook_backup",
    "hook_patches", "in_channels", "injections", "input_blocks", "latent_dim", "latent_format", "middle_block", "object_patches",
    "object_patches_backup", "output_blocks", "process_latent_in", "sub_idxs", "weight_wrapper_patches",
}
METHOD = {"torch", "einops", *sys.stdlib_module_names}
MOST_LINES = 250


def room(path: Path) -> str:
    folders = path.relative_to(ROOT).parts
    return "/".join(folders[:2]) if "/".join(folders[:2]) in BELOW else folders[0]


FILES = [path for name in ("nodes", "sheets", "encoders", "attention", "pictures") for path in sorted((ROOT / name).rglob("*.py"))]


def imports(path: Path) -> tuple[set[str], set[Path]]:
    """Packages from elsewhere, by their first name, and what is imported of the pack, as paths."""
    others, ours = set(), set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            others |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = path.parents[node.level - 1].joinpath(*(node.module or "").split("."))
            ours |= {base / alias.name if base.is_dir() else base for alias in node.names}
    return others, ours


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down(path):
    others, ours = imports(path)
    assert {room(each) for each in ours} <= BELOW[room(path)] | {room(path)}
    assert "nodes" not in others, "relative imports only; and the host's registry of nodes is not ours to read"
    if room(path) == "attention":
        assert others <= METHOD


@pytest.mark.parametrize("path", [
    path for path in FILES if path.parent.name not in ("host", "checkpoint")  # that one builds the host's own objects
], ids=lambda path: str(path.relative_to(ROOT)))
def test_the_host_is_read_in_one_place(path):
    tree = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    read = {getattr(node, "attr", getattr(node, "value", None)) for node in tree if isinstance(node, (ast.Attribute, ast.Constant))}
    assert not INTERNALS & read


def test_files_of_tests_have_names_of_their_own():
    """pytest takes one of a name only, so that two stop a run of all tests, as `make slow` is."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert len(names) == len(set(names))


def test_no_source_file_is_long():
    rooms = ("nodes", "sheets", "encoders", "attention", "pictures", "training", "bench", "catalogue", "workflows")
    files = [ROOT / "__init__.py", *(path for name in rooms for path in (ROOT / name).rglob("*.py"))]
    long = {str(path.relative_to(ROOT)) for path in files if len(path.read_text(encoding="utf-8").splitlines()) > MOST_LINES}
    assert not long


@pytest.mark.parametrize("path", [
    path for folder in ("tests", "bench", "training", "catalogue") for path in sorted((ROOT / folder).rglob("*.py"))
], ids=lambda path: str(path.relative_to(ROOT)))
def test_tests_share_by_the_harness_only(path):
    """What a test file or conftest defines is its own: pytest may run it without the others."""
    others, ours = imports(path)
    assert not {name for name in others if name == "conftest" or name.startswith("test_")}
    assert not {each for each in ours if ROOT / "tests" in each.parents}, "not by a relative import either"
