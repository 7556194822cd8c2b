"""Stand-ins for torchvision, intact and broken in several ways, and the installed one.

An operator cannot be declared twice, nor an import undone: each case runs in a process of its own, forked from one that
has imported torch.
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

DISTILL = Path(__file__).parents[3] / "distill" / "third_party"

# The module alone, without the package around it: a second less.
FORK = f"""
import json, os, sys
import torch
sys.path.insert(0, {str(DISTILL)!r})
from torchvision_compat import prepare_torchvision, watch_torchvision
for line in sys.stdin:
    folder, code = json.loads(line)
    read, write = os.pipe()
    if not os.fork():
        os.dup2(write, 1), os.dup2(write, 2), os.close(read)
        sys.path.insert(0, folder)
        try:
            exec(code)
        except BaseException as error:
            print(type(error).__name__, error)
        sys.stdout.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        print(json.dumps(pipe.read()), flush=True)
    os.wait()
"""

Run = Callable[[str], list[str]]


@pytest.fixture(scope="module")
def server() -> Iterator[subprocess.Popen[str]]:
    start = [sys.executable, "-c", FORK]
    with subprocess.Popen(start, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture
def run(server: subprocess.Popen[str], tmp_path: Path) -> Run:
    """The lines that code prints, the error that ends it among them; packages in `tmp_path` come first."""

    def answer(code: str) -> list[str]:
        assert server.stdin is not None and server.stdout is not None
        print(json.dumps([str(tmp_path), code]), file=server.stdin, flush=True)
        return json.loads(server.stdout.readline()).splitlines()

    return answer


def _torchvision(folder: Path, *, extension: str = "", describes: str = "") -> None:
    """A package that loads its compiled part, describes the operators, and then works."""
    package = folder / "torchvision"
    package.mkdir()
    imports = "from . import extension\nimport torchvision.extension\nloaded = torchvision.extension.loaded\n"
    (package / "__init__.py").write_text(imports + "from . import described\n")
    (package / "extension.py").write_text("loaded = False\n" + extension)
    (package / "described.py").write_text("import torch\n" + describes)


DESCRIBES = """
for name in ("nms", "qnms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda dets, scores, iou_threshold: dets)
"""
# As C++ does: a second declaration of an operator, or of the library, is an error.
COMPILED = """
import torch
library = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms", "roi_align"):
    library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
loaded = True
"""

BROKEN = {
    "nms alone": 'torch.library.register_fake("torchvision::nms")(lambda *a: a)',
    "nms and qnms": DESCRIBES,
    "operators of the future": """
for name in ("nms", "soft_nms", "hard_nms"):
    torch.library.register_fake(f"torchvision::{name}")(lambda *a: a)
""",
    "an attribute": "torch.ops.torchvision.roi_align\ntorch.ops.torchvision.nms",
    "a wrapped error": """
try:
    torch.ops.torchvision.nms
except AttributeError as error:
    raise ImportError(f"cannot set up: {error}") from error
""",
}


@pytest.mark.parametrize("call", ["watch", "prepare"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_torchvision_that_cannot_load_is_made_importable(run: Run, tmp_path: Path, broken: str, call: str) -> None:
    _torchvision(tmp_path, describes=BROKEN[broken])
    assert "torchvision" in " ".join(run("import torchvision"))  # it is broken
    repaired = f"{call}_torchvision()\nimport torchvision, torchvision.described\nprint(torchvision.loaded)"
    assert run(repaired) == ["False"]


@pytest.mark.parametrize("call", ["watch", "prepare"])
def test_nothing_is_declared_of_an_intact_one(run: Run, tmp_path: Path, call: str) -> None:
    """Whatever its compiled part is called: that is never looked for."""
    _torchvision(tmp_path, extension=COMPILED, describes=DESCRIBES)
    code = f"""
{call}_torchvision()
import torchvision, torchvision_compat
print(torchvision.loaded, torchvision_compat._declared)
"""
    assert run(code) == ["True []"]


def test_nothing_happens_without_one_or_with_an_imported_one(run: Run, tmp_path: Path) -> None:
    absent = """
import importlib.util
sys.modules["torchvision"] = None  # what is installed here
prepare_torchvision()
prepare_torchvision()
print(importlib.util.find_spec("torchvision"), hasattr(torch.ops.torchvision, "nms"))
"""
    assert run(absent) == ["None False"]
    imported = """
import types
sys.modules["torchvision"] = module = types.ModuleType("torchvision")
prepare_torchvision()
print(sys.modules["torchvision"] is module, hasattr(torch.ops.torchvision, "nms"))
"""
    assert run(imported) == ["True False"]


def test_an_import_that_failed_before_is_no_obstacle(run: Run, tmp_path: Path) -> None:
    """A script that tried by itself first: what the failure left in memory is not taken for the package."""
    describes = "import torchvision\nassert torchvision.part.name == 1\n" + DESCRIBES
    _torchvision(tmp_path, extension="from .part import name", describes=describes)
    (tmp_path / "torchvision" / "part.py").write_text("name = 1")
    code = """
for _ in range(2):
    try:
        import torchvision
    except (RuntimeError, AttributeError) as error:
        print("failed")
watch_torchvision()
import torchvision
print(torchvision.described.__name__, torchvision.part.name)
"""
    assert run(code) == ["failed", "failed", "torchvision.described 1"]


def test_a_library_that_looks_for_it_finds_the_usual_loader(run: Run, tmp_path: Path) -> None:
    _torchvision(tmp_path, describes=DESCRIBES)
    code = """
import importlib, importlib.util, inspect
class Bare:
    find_module = lambda self, name, path=None: None  # what Python 3.11 still asks a finder without find_spec for
sys.meta_path.insert(0, Bare())
watch_torchvision()
watch_torchvision()
print(importlib.util.find_spec("torchvision").origin.endswith("__init__.py"))
import torchvision
print(type(torchvision.__loader__).__name__, type(torchvision.__spec__.loader).__name__)
print(inspect.getsource(torchvision).splitlines()[0])
print(importlib.reload(torchvision) is torchvision)
print(sum(type(finder).__module__ == "torchvision_compat" for finder in sys.meta_path))
"""
    loader = "SourceFileLoader"
    assert run(code) == ["True", f"{loader} {loader}", "from . import extension", "True", "1"]


# What its import does, and what the warning must say.
BEYOND_MENDING = {
    "built for another CUDA": (
        'raise RuntimeError("different CUDA major\\nversions")',
        "RuntimeError: different CUDA major ",
    ),
    "another torch's interface": ("from torch import a_name_that_went", "ImportError: cannot import name 'a_name_that"),
    "an unreadable library": ('raise OSError("undefined symbol: _ZN2at")', "OSError: undefined symbol: _ZN2at"),
    "a missing dependency": ("import a_missing_package", "ModuleNotFoundError: No module named 'a_missing_package'"),
    "an operator that exists": (
        COMPILED + 'raise RuntimeError("torchvision::nms is registered twice")',
        "RuntimeError: torchvision::nms is registered twice",
    ),
    "an error that stays": (
        'import torch\ntorch.ops.torchvision.nms_\nraise RuntimeError("torchvision::nms_")',
        "RuntimeError: torchvision::nms_",
    ),
}


@pytest.mark.parametrize("broken", BEYOND_MENDING)
def test_what_cannot_be_mended_is_hidden_and_told(run: Run, tmp_path: Path, broken: str) -> None:
    extension, reason = BEYOND_MENDING[broken]
    _torchvision(tmp_path, extension=extension, describes=DESCRIBES)
    code = """
import importlib.util, warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    prepare_torchvision()
    prepare_torchvision()
print(len(caught), caught[0].category.__name__, caught[0].message)
print(importlib.util.find_spec("torchvision"))
print([name for name in sys.modules if name.startswith("torchvision.")])
import torchvision
"""
    message, spec, left, then = run(code)
    assert message.startswith("1 RuntimeWarning torchvision cannot be imported with torch 2.")
    assert reason in message
    assert "install the version that matches this torch" in message
    assert (spec, left) == ("None", "[]")
    assert then.startswith("ModuleNotFoundError")


def test_without_prepare_its_own_error_is_kept(run: Run, tmp_path: Path) -> None:
    _torchvision(tmp_path, extension='raise OSError("undefined symbol: _ZN2at")')
    assert run("watch_torchvision()\nimport torchvision") == ["OSError undefined symbol: _ZN2at"]


def test_the_package_watches_and_imports_nothing() -> None:
    """A script that imports diffusers beside this package needs no call."""
    code = """
import sys, steindreamer.distill
print([type(finder).__name__ for finder in sys.meta_path][0], "torchvision" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["_Finder", "False"]


@pytest.mark.skipif(importlib.util.find_spec("torchvision") is None, reason="torchvision is not installed")
@pytest.mark.parametrize("call", ["watch", "prepare"])
def test_the_installed_torchvision_can_be_imported(run: Run, call: str) -> None:
    code = f"{call}_torchvision()\nimport torchvision.transforms.v2\nfrom torchvision.ops import nms\nprint('imported')"
    assert run(code) == ["imported"]
