"""Who may import whom, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("representations", "distill", "world", "training", "pipelines", "configs", "assets")
MAY_IMPORT = {
    "representations": set(),
    "distill": set(),
    "world": {"representations", "distill", "assets"},
    "training": {"representations", "distill", "world"},
    "pipelines": {"representations", "distill", "world", "assets"},
    "configs": set(),
    "assets": set(),
}
SCRIPTS = [ROOT / "pipelines" / f"{name}.py" for name in ("run", "batch", "probe", "compare", "finish", "retexture")]
"""Executed by path, outside the package."""
SHARED = {path.stem for path in (ROOT / "steindreamer").glob("[!_]*.py")}
"""Modules that all folders may import and that import none of them."""
HEAVY = ("diffusers", "transformers", "gsplat", "nvdiffrast", "timm", "kaolin", "pytorch3d")
ROOT_MODULES = {
    "representations": {
        "base",
        "cameras",
        "triangle_mesh",
        "deferred_terms",
        "placement",
        "background",
        "particles",
        "jit",
        "ops",
        "backends",
    },
    "distill": {"distiller", "residual", "learned_score", "geometry_buffers", "basis", "ranks"},
    "pipelines": {
        *("run", "batch", "compare", "probe", "finish", "retexture", "command", "console", "progress", "foreign_code"),
        *("engines", "errors", "plain_text", "streams", "files", "devices", "priors", "geometry_models"),
    },
}
"""Modules that stand directly in a main folder; all others live in a subfolder with a subject."""


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imports(source: str, path: Path) -> Iterator[tuple[str, ...]]:
    """Modules of the product that a file imports at any level, as path parts; type-checking blocks are skipped."""
    package = path.relative_to(ROOT).parts[:-1]
    nodes: list[ast.AST] = [ast.parse(source)]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            nodes += node.orelse
            continue
        nodes += ast.iter_child_nodes(node)
        if isinstance(node, ast.ImportFrom):
            stem = tuple(node.module.split(".") if node.module else [])
            if node.level:
                yield from _modules(package[: len(package) - node.level + 1] + stem, node.names)
            elif stem[0] == "steindreamer":
                yield from _modules(stem[1:], node.names)
            elif stem[0] in FOLDERS:
                yield (f"bare {stem[0]}",)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                first, *rest = alias.name.split(".")
                if first == "steindreamer" and rest:
                    yield tuple(rest)
                elif first in FOLDERS:
                    yield (f"bare {first}",)


def _modules(stem: tuple[str, ...], names: list[ast.alias]) -> Iterator[tuple[str, ...]]:
    """`from stem import names`: the names that are modules, else the stem."""
    for alias in names:
        path = ROOT.joinpath(*stem, alias.name)
        yield (*stem, alias.name) if path.is_dir() or path.with_suffix(".py").exists() else stem


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_between_folders(folder: str) -> None:
    for path in _sources(folder):
        for imported in _imports(path.read_text(), path):
            if not imported or (path in SCRIPTS and imported[0] == "pipelines"):
                continue
            assert imported[0] in MAY_IMPORT[folder] | SHARED | {folder}, f"{path.relative_to(ROOT)} imports {imported}"


def _room(module: tuple[str, ...]) -> str:
    return module[1].removesuffix(".py")


def _rooms(folder: str) -> dict[str, set[str]]:
    """The subfolders and root modules of a folder, each with those that it imports."""
    rooms: dict[str, set[str]] = {}
    for path in _sources(folder):
        parts = path.relative_to(ROOT).parts
        if parts[1] == "__init__.py":
            continue
        here = rooms.setdefault(_room(parts), set())
        here |= {_room(m) for m in _imports(path.read_text(), path) if m[:1] == (folder,) and len(m) > 1}
        here.discard(_room(parts))
    return rooms


@pytest.mark.parametrize("folder", ["representations", "distill", "world", "training", "pipelines"])
def test_no_circles_within_a_folder(folder: str) -> None:
    try:
        TopologicalSorter(_rooms(folder)).prepare()
    except CycleError as error:
        raise AssertionError(f"{folder}/: {' <- '.join(error.args[1])}") from None


@pytest.mark.parametrize("folder", ROOT_MODULES)
def test_modules_live_in_a_subfolder_with_a_subject(folder: str) -> None:
    assert {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"} == ROOT_MODULES[folder]


def test_the_import_tests_can_fail() -> None:
    path = ROOT / "distill" / "example.py"
    assert list(_imports("from steindreamer.representations import Cameras", path)) == [("representations",)]
    assert list(_imports("from ..representations import Cameras", path)) == [("representations",)]
    assert list(_imports("import representations", path)) == [("bare representations",)]
    assert list(_imports("from .noise import schedule", path)) == [("distill", "noise", "schedule")]
    assert list(_imports("if TYPE_CHECKING:\n    from .distiller import Distiller", path)) == []


def test_no_file_shadows_the_standard_library() -> None:
    """`python pipelines/run.py` puts pipelines/ first on sys.path."""
    names = {path.stem for folder in FOLDERS for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert not names & sys.stdlib_module_names


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, steindreamer.representations, steindreamer.distill, steindreamer.pipelines.runs.runner\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_nothing_loads_pickles() -> None:
    banned = ("import pickle", "torch.load(", "allow_pickle=True", "import joblib", "trust_remote_code=True")
    for folder in (*FOLDERS, "examples", "benchmarks"):
        for path in _sources(folder):
            for line in path.read_text().splitlines():
                assert not any(word in line for word in banned), f"{path}: {line.strip()}"
