"""The shipped estimator: found in the installation, and a clear word when it is not there or damaged."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest
import torch

from steindreamer import assets
from steindreamer.distill.estimator import GeometryEstimator
from steindreamer.distill.tiny_estimator import CONFIG_FILE, WEIGHTS_FILE
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.estimators import FOLDER, load_estimator

CPU = torch.device("cpu")


def test_the_estimator_ships() -> None:
    assert isinstance(load_estimator(CPU), GeometryEstimator)


def test_a_missing_estimator_is_the_users_to_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded.*install steindreamer again"):
        load_estimator(CPU)


def test_a_damaged_estimator_is_the_users_to_fix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = resources.files(assets).joinpath(FOLDER)
    folder = tmp_path / FOLDER
    folder.mkdir()
    (folder / CONFIG_FILE).write_bytes(shipped.joinpath(CONFIG_FILE).read_bytes())
    (folder / WEIGHTS_FILE).write_bytes(shipped.joinpath(WEIGHTS_FILE).read_bytes()[:1000])
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(UserError, match=r"cannot be loaded.*install steindreamer again"):
        load_estimator(CPU)
