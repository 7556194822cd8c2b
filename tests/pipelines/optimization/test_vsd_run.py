"""Whole runs by VSD on small text-to-image models: from the command line, killed and resumed to the bit, refused."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tiny_diffusion_models import save_tiny_model

from steindreamer.pipelines import main

pytest.importorskip("diffusers")

SETTINGS = [
    "--method", "vsd", "--prompt", "a mug", "--no-refine", "--quiet", "representation.count=200",
    "stages.coarse.steps=4", "stages.coarse.resolution=32", "stages.coarse.warmup_resolution=32",
    "stages.coarse.probe_every=2", "export.enabled=false", "output.checkpoint_every=2", "output.preview_every=0",
    "output.turntable_frames=0", "output.image_size=32", "output.log_every=1",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["StableDiffusionPipeline", "StableDiffusion3Pipeline"])
def test_a_resumed_run_ends_in_the_same_bits(pipeline: str, tmp_path: Path) -> None:
    """The second run loses its last checkpoint and goes on from the one before."""
    model, whole, broken = save_tiny_model(tmp_path / "model", pipeline), tmp_path / "whole", tmp_path / "broken"
    assert main(["--prior", str(model), "--out", str(whole), *SETTINGS]) == 0
    shutil.copytree(whole, broken)
    for suffix in ("json", "safetensors"):
        (broken / "checkpoints" / f"000004.{suffix}").unlink()
    assert main(["--resume", "--out", str(broken), "--quiet"]) == 0

    first, second = (load_file(folder / "checkpoints" / "000004.safetensors") for folder in (whole, broken))
    assert first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
    assert (whole / "metrics.jsonl").read_text().count("\n") == 4
    lines = [
        [json.loads(line)["learned_score_error"] for line in (folder / "metrics.jsonl").read_text().splitlines()]
        for folder in (whole, broken)
    ]
    assert lines[0] == lines[1] and lines[0][0] == 0 and min(lines[0][1:]) > 0
    moments = [name for name in first if name.startswith("distiller.color.learned_score.optimizer.")]
    assert any(first[name].abs().max() > 0 for name in moments)

    part = "unet" if pipeline == "StableDiffusionPipeline" else "transformer"
    kind = {"unet": "UNet2DConditionModel", "transformer": "SD3Transformer2DModel"}[part]
    denoiser = getattr(importlib.import_module("diffusers"), kind).from_pretrained(model, subfolder=part)
    pytest.importorskip("peft")
    denoiser.load_lora_adapter(
        str(whole / "checkpoints"),
        weight_name="000004.safetensors",
        prefix="distiller.color.learned_score.lora.layers",
    )
    loaded = {name: p for name, p in denoiser.named_parameters() if "lora_" in name}
    mine = [name for name in first if name.startswith("distiller.color.learned_score.lora.layers.")]
    assert len(loaded) == len(mine) > 0
    name, parameter = next((name, p) for name, p in loaded.items() if "lora_B" in name)
    saved = first[f"distiller.color.learned_score.lora.layers.{name.replace('.default_0', '')}"]
    assert parameter.abs().max() > 0 and parameter.equal(saved)


def test_a_prior_without_a_network_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--out", str(tmp_path / "run"), *SETTINGS, "--prompt", "a red mug", "--prior", "world"]) == 2
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "method vsd fine-tunes the prior's denoiser by LoRA, and WorldPrior has none: give a text-to" in message
    assert not (tmp_path / "run").exists()
