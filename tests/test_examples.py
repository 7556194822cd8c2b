"""The examples run as they stand."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import trimesh

from steindreamer.representations import REPRESENTATIONS

EXAMPLES = Path(__file__).parents[1] / "examples"
TINY = [
    "stages.coarse.steps=2", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "prior.name=world",
    "prior.objects=1",
    "stages.geometry.steps=2", "stages.geometry.resolution=16", "mesh.resolution=16",
    "stages.texture.steps=2", "stages.texture.resolution=16",
    "representation.samples=24",
    "export.resolution=24", "export.view_size=48", "export.cameras=12", "export.texture_size=64",
    "export.face_budget=400", "output.picture_size=16", "output.turntable_frames=2",
]  # fmt: skip


def test_voxels_become_an_asset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["voxels.py", "a red mug", *TINY])
    try:
        runpy.run_path(str(EXAMPLES / "voxels.py"), run_name="__main__")
    finally:
        REPRESENTATIONS.pop("voxels", None)
    assert "runs/voxels/asset/asset.glb" in capsys.readouterr().out.splitlines()[-1]
    mesh = trimesh.load(tmp_path / "runs/voxels/asset/asset.glb", force="mesh")
    assert isinstance(mesh, trimesh.Trimesh)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    assert mesh.is_watertight and 100 < len(mesh.faces) <= 400
