"""Settings of a batch of runs that take a second or two."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from steindreamer.pipelines.config.run_config import RunConfig, load_config
from steindreamer.pipelines.export import asset
from steindreamer.pipelines.export.fidelity import color_fidelity, fidelity_cameras

SETTINGS = (
    "stages.coarse.steps=6", "stages.coarse.resolution=16", "stages.coarse.warmup_resolution=16", "refine=false",
    "representation.count=40", "output.checkpoint_every=2", "output.preview_every=0", "output.turntable_frames=0",
    "output.image_size=16", "prior.objects=1", "export.resolution=16", "export.cameras=8", "export.view_size=32",
    "export.texture_size=64", "export.face_budget=200", "export.lods=[1]", "export.hulls=0", "export.padding=1",
)  # fmt: skip
WORDS = ["--prior", "world", *SETTINGS]


def small_config(prompt: str, *overrides: str, **settings: Any) -> RunConfig:
    """The configuration of a row."""
    return load_config("cpu", prompt=prompt, prior="world", overrides=[*SETTINGS, *overrides], **settings)


def glb_files(out: Path) -> Mapping[str, bytes]:
    """Content of the assets of a batch, by name of the run's folder."""
    return {path.parents[1].name: path.read_bytes() for path in sorted(out.glob("runs/*/asset/asset.glb"))}


def small_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the images of an exported asset small, which does not change the asset."""
    monkeypatch.setattr(asset, "IMAGE_SIZE", 16)
    monkeypatch.setattr(asset, "THUMBNAIL_SIZE", 32)
    cameras = fidelity_cameras(32)
    monkeypatch.setattr(asset, "color_fidelity", partial(color_fidelity, cameras=cameras))
