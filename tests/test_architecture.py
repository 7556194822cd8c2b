"""Who may import whom, checked on the source itself."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("representations", "distill", "training", "pipelines", "configs", "assets")
MAY_IMPORT = {
    "representations": set(),
    "distill": set(),
    "training": {"representations", "distill"},
    "pipelines": {"representations", "distill", "training"},
    "configs": set(),
    "assets": set(),
}
SCRIPTS = [ROOT / "pipelines" / f"{name}.py" for name in ("run", "probe", "compare")]
"""Run by path, outside the package."""
HEAVY = ("diffusers", "transformers", "gsplat", "nvdiffrast", "timm", "kaolin", "pytorch3d")


def _sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def _imported_folders(source: str, path: Path) -> Iterator[str]:
    """Top-level folders that a file imports, whether relatively or by name."""
    depth = len(path.relative_to(ROOT).parts) - 1
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.level:
            if node.level > depth and node.module:
                yield node.module.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from _named(node.module)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield from _named(alias.name)


def _named(module: str) -> Iterator[str]:
    first, *rest = module.split(".")
    if first == "steindreamer" and rest:
        yield f"steindreamer.{rest[0]}"
    elif first in FOLDERS:
        yield f"bare {first}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_arrows_between_folders(folder: str) -> None:
    for path in _sources(folder):
        for imported in _imported_folders(path.read_text(), path):
            if path in SCRIPTS and imported == "steindreamer.pipelines":
                continue
            assert imported in MAY_IMPORT[folder] | {folder}, f"{path.relative_to(ROOT)} imports {imported}"


def test_the_arrow_test_can_fail() -> None:
    path = ROOT / "distill" / "example.py"
    assert list(_imported_folders("from ..representations import Cameras", path)) == ["representations"]
    assert list(_imported_folders("import representations", path)) == ["bare representations"]
    assert list(_imported_folders("from .schedule import NoiseSchedule", path)) == []


def test_no_file_shadows_the_standard_library() -> None:
    """`python pipelines/run.py` puts pipelines/ first on sys.path."""
    names = {path.stem for folder in FOLDERS for path in (ROOT / folder).glob("*.py")} - {"__init__"}
    assert not names & sys.stdlib_module_names


def test_importing_the_package_stays_light() -> None:
    code = (
        "import sys, steindreamer.representations, steindreamer.distill, steindreamer.pipelines.runner\n"
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
