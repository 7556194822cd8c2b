"""Whole runs on text-to-image models of the real classes with random weights, from the command line to a GLB."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest
import trimesh
import yaml
from tiny_diffusion_models import save_tiny_model

from steindreamer.pipelines import main
from steindreamer.pipelines.config.run_config import CHOICES

pytest.importorskip("diffusers")


def test_the_docs_list_every_setting_with_its_default() -> None:
    text = (Path(__file__).parents[3] / "docs" / "models.md").read_text(encoding="utf-8")
    rows = text.split("## Settings\n")[1].split("\n## ")[0].splitlines()
    cells = [[cell.strip(" `") for cell in row.split("|")[1:3]] for row in rows if row.startswith("| `")][1:]
    listed = {name: yaml.safe_load(default) if default else "" for name, default in cells}
    assert listed == {field.name: field.default for field in fields(CHOICES["prior"]["diffusers"])}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "method"), [("StableDiffusionPipeline", "ssd"), ("StableDiffusion3Pipeline", "sds")]
)
def test_the_command_line_makes_an_asset(pipeline: str, method: str, tmp_path: Path) -> None:
    model = save_tiny_model(tmp_path / "model", pipeline)
    run = tmp_path / "run"
    status = main(
        [
            *("--prior", str(model), "--method", method, "--prompt", "a mug", "--out", str(run), "--quiet"),
            *("--no-refine", "representation.count=300", "stages.coarse.steps=2", "stages.coarse.resolution=32"),
            *("stages.coarse.warmup_resolution=32", "output.turntable_frames=0", "output.log_every=1"),
            *(
                "export.resolution=24",
                "export.cameras=12",
                "export.view_size=64",
                "export.texture_size=128",
                "export.lods=[1]",
                "export.hulls=0",
            ),
        ]
    )
    assert status == 0
    assert isinstance(trimesh.load(run / "asset" / "asset.glb", force="mesh"), trimesh.Trimesh)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 2 and all(line["residual_rms"] > 0 for line in lines)
    assert json.loads((run / "summary.json").read_text())["skipped_steps"] == 0
