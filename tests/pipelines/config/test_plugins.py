"""Custom components through --plugin and entry points, in every command and in the processes that it starts."""

from __future__ import annotations

import csv
import os
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from steindreamer.distill import METHODS, register_method
from steindreamer.pipelines import foreign_code, register_prior
from steindreamer.pipelines.cli.compare import main as compare
from steindreamer.pipelines.cli.probe import main as probe
from steindreamer.pipelines.cli.run import main as run
from steindreamer.pipelines.config import plugins
from steindreamer.pipelines.errors import SettingsError, UserError
from steindreamer.pipelines.priors import PRIORS
from steindreamer.representations import REPRESENTATIONS, register_representation

SAMPLE = Path(__file__).parents[2] / "support" / "sample_plugin.py"
VOXELS = Path(__file__).parents[3] / "examples" / "02_your_representation.py"
TINY = ["stages.coarse.steps=2", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16"]
QUICK = [*TINY, "output.turntable_frames=0", "output.image_size=16", "export.enabled=false"]


def test_a_representation_from_a_file_is_trained_and_resumed_only_with_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "run"), "--prior", "world", "--quiet"]
    settings = ["--no-refine", "--prompt", "a red mug", "representation.samples=8", "representation.resolution=8"]
    world = ["prior.objects=1", "prior.unconditional_objects=1"]
    plugin = ["--plugin", str(VOXELS)]
    assert run([*plugin, "--repr", "voxels", *out, *settings, *world, *QUICK]) == 0, capsys.readouterr().err
    assert f"plugins:\n- {VOXELS}\n" in (tmp_path / "run" / "config.yaml").read_text()
    del REPRESENTATIONS["voxels"]
    plugins.LOADED.clear()
    assert run(["--resume", *out]) == 2
    captured = capsys.readouterr().err
    assert f"add --plugin {VOXELS}\n" in captured and len(captured.splitlines()) == 1
    assert "voxels" not in REPRESENTATIONS, "what a run's folder names is not run"
    elsewhere = tmp_path / VOXELS.name
    elsewhere.write_text(VOXELS.read_text())
    assert run(["--resume", "--plugin", str(elsewhere), *out]) == 0, capsys.readouterr().err


def test_everything_of_an_outsiders_is_compared_and_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "06_my-method.v2.py"  # not the name of a module
    file.write_text(SAMPLE.read_text())
    plugin = ["--plugin", str(file)]
    call = [
        "--methods", "calm", "--prompts", "a red mug",
        "--seeds", "0", "--prior", "lonely", "--repr", "dots", "--score", "psnr", "--measurements", "1",
        "--tuples", "0", "--views", "1", "--size", "16", "--jobs", "1", "--out", str(tmp_path / "compared"),
        "--settings", *TINY, "prior.unconditional_objects=1",
    ]  # fmt: skip
    assert compare([*plugin, *call]) == 0, capsys.readouterr().err
    with (tmp_path / "compared" / "runs.csv").open() as table:
        assert [row["method"] for row in csv.DictReader(table)] == ["calm"]
    finished = tmp_path / "compared" / "runs" / "calm--a-red-mug--0"
    assert probe([*plugin, str(finished), "--method", "calm", "--tuples", "8", "--learn", "0"]) == 0
    assert "calm" in capsys.readouterr().out
    assert probe([str(finished)]) == 2 and f"add --plugin {file}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nraise RuntimeError('two\\nlines')\n", "in line 2: RuntimeError: two lines"),
        ("def f():\n    return 1 +\n", "in line 2: SyntaxError"),
        ("import nothing_of_this_name\n", "in line 1: ModuleNotFoundError: No module named 'nothing_of_this_name'"),
        ("\n\nimport sys; sys.exit(3)\n", "in line 3: SystemExit: 3"),
        ("import json\n\njson.loads('{')\n", "in line 3: JSONDecodeError"),
        ("from steindreamer.distill import METHODS\nMETHODS['x'] = int\n", "METHODS['x'] must be a dataclass"),
        (
            "from steindreamer.distill import SDSConfig, register_method as r\nr('a/b', SDSConfig)\n",
            "'a/b' is not a valid name of a method; letters, digits",
        ),
        ("from steindreamer.distill import SDSConfig, register_method as r\nr('ssd', SDSConfig)\n", "exists already"),
        (
            "from steindreamer.representations import GaussiansConfig\nfrom steindreamer.distill import METHODS\n"
            "METHODS['x'] = GaussiansConfig\n",
            "a dataclass that extends MethodConfig",
        ),
        (
            "from dataclasses import dataclass\nfrom steindreamer.pipelines import register_prior\n@dataclass\n"
            "class P:\n    a: int\n    def build(self, device): ...\nregister_prior('p', P)\n",
            "cannot be built with its default settings: TypeError",
        ),
    ],
)
def test_a_plugin_that_fails_is_one_line(
    source: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(source)
    assert run(["--plugin", str(path), "--list"]) == 1
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.splitlines()) == 1 and captured.out == ""


def test_what_is_no_python_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "pipe.py")
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "text.txt").write_text("")
    for name in ("pipe.py", "folder.py", "text.txt", "missing.py"):
        for main, more in ((run, ["--list"]), (probe, [str(tmp_path)])):
            assert main(["--plugin", str(tmp_path / name), *more]) == 2
            captured = capsys.readouterr().err
            assert name in captured and len(captured.splitlines()) == 1


def test_an_installed_plugin_is_found_by_its_entry_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "installed_plugin.py").write_text(SAMPLE.read_text())
    monkeypatch.syspath_prepend(str(tmp_path))
    points = [EntryPoint("mine", "installed_plugin", foreign_code.GROUP)]
    monkeypatch.setattr(foreign_code, "entry_points", lambda group: points if group == foreign_code.GROUP else [])
    assert run(["--list"]) == 0
    captured = capsys.readouterr().out
    assert "  dots\n      Few Gaussians.\n" in captured and "  calm\n" in captured and "  lonely\n" in captured
    assert plugins.load_plugins([]) == [], "nothing registers twice"
    points[0] = EntryPoint("gone", "not_installed_any_more:thing", foreign_code.GROUP)
    assert run(["--list"]) == 1
    assert "installed plugin 'gone' (not_installed_any_more:thing) failed" in capsys.readouterr().err


def test_names_are_registered_once() -> None:
    pairs: list[tuple[Any, Any]] = [
        (register_representation, REPRESENTATIONS),
        (register_method, METHODS),
        (register_prior, PRIORS),
    ]
    for register, known in pairs:
        name, config = next(iter(known.items()))
        with pytest.raises(ValueError, match=f"named '{name}' exists already"):
            register(name, config)
        register("another", config)
        assert known["another"] is config


def test_a_file_is_run_once_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "mine.py"
    path.write_text(SAMPLE.read_text())
    (tmp_path / "link.py").symlink_to(path)
    assert plugins.load_plugins([path, Path("mine.py"), Path("link.py")]) == [str(path)] * 3
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.py").write_text("VALUE = 2\n")
    plugins.load_plugins([other / "mine.py"])
    assert {module.__name__.rsplit("_", 1)[1] for module in plugins.LOADED.values()} == {"mine"}


def test_any_file_name_makes_a_module(tmp_path: Path) -> None:
    path = tmp_path / "01 my-file.v2.py"
    path.write_text("VALUE = 1\n")
    plugins.load_plugins([path])
    (module,) = plugins.LOADED.values()
    assert module.__name__.isidentifier() and module.__name__.endswith("_01_my_file_v2")


def test_a_name_in_settings_runs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("raise SystemExit('was run')\n")
    with pytest.raises(SettingsError, match="is loaded only when given explicitly: add --plugin"):
        plugins.refuse_missing_plugins([{"plugins": [str(path)]}], [])
    plugins.refuse_missing_plugins([{"plugins": [str(path)]}, {}, {"plugins": "x"}], [Path("moved/mine.py")])
    with pytest.raises(UserError, match="was run"):
        plugins.load_plugins([path])
