"""`finish` and `audit` with several files and with folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import trimesh

from steindreamer.pipelines.cli.main import main
from steindreamer.pipelines.cli.several import files_of, split_words


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two boxes, a file that is no mesh, a collider of the first box, and a run."""
    out = tmp_path / "files"
    (out / "run" / "asset").mkdir(parents=True)
    (out / "empty").mkdir()
    box = trimesh.creation.box((1, 1, 1))
    for name in ("a.stl", "b.stl", "a_collider.stl", "a_lods.stl", "run/asset/asset.glb"):
        box.export(out / name)
    (out / "c.stl").write_bytes(b"nothing")
    (out / "note.txt").write_text("x")
    return out


def test_a_folder_stands_for_its_files_and_runs(folder: Path) -> None:
    names = [path.name for path in files_of([folder], (".stl", ".glb"))]
    assert names == ["a.stl", "b.stl", "c.stl", "run"]
    for path in (folder / "run", folder / "empty", folder / "a_collider.stl"):
        assert files_of([path], (".stl",)) == [path]
    assert files_of([folder / "b.stl", folder], (".stl",))[0] == folder / "b.stl"
    files, overrides = split_words(["a.glb", "lods=[1]", str(folder)])
    assert files == [Path("a.glb"), folder] and overrides == ["lods=[1]"]


def test_one_bad_file_does_not_stop_the_others(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = folder.parent / "finished"
    command = ["finish", str(folder), "--preset", "print", "--quiet", "--out", str(out)]
    assert main(command) == 1
    printed = capsys.readouterr()
    first, last = printed.err.splitlines()
    assert "c.stl" in first and last.startswith("error: 1 of 4 files failed")
    assert [line.split()[1] for line in printed.out.splitlines()] == [
        *("result", "finished", "finished", "failed", "finished")
    ]
    for name in ("a", "b", "run"):
        (file,) = (out / f"{name}-print").glob("*.stl")
        assert trimesh.load_mesh(file).is_watertight
    (folder / "c.stl").unlink()
    assert main(command) == 0
    assert capsys.readouterr().out.count("kept") == 3


def test_names_that_collide_are_refused_before_anything_is_written(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = folder.parent / "other"
    other.mkdir()
    trimesh.creation.box().export(other / "b.stl")
    out = folder.parent / "finished"
    assert main(["finish", str(folder), str(other), "--preset", "print", "--out", str(out)]) == 1
    assert "would both be written as 'b-print'" in capsys.readouterr().err and not out.exists()


def test_audit_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = folder.parent / "audit.json"
    assert main(["audit", str(folder), "--json", str(report)]) == 2
    printed = capsys.readouterr()
    assert "c.stl" in printed.err and "1 of 4 files cannot be read" in printed.err
    results = json.loads(report.read_text())
    assert [Path(result["file"]).name for result in results] == ["a.stl", "b.stl", "asset.glb"]
    (folder / "c.stl").unlink()
    assert main(["audit", str(folder)]) in (0, 1)
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 4 and table[0].split()[:2] == ["file", "result"]
    for result, line in zip(results, table[1:], strict=True):
        assert ("not ready" in line) is not result["passed"] and f" {result['warnings']} " in line
    assert main(["audit", str(folder), "--html", "x.html"]) == 2
    assert "--html is for a single file" in capsys.readouterr().err
