"""Shared fixtures. Every jaxtyping annotation of the package is an assertion while the tests run."""

from __future__ import annotations

import os
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

from jaxtyping import install_import_hook


def _modules_with_shapes() -> list[str]:
    """Only those: the assertions cost what has no tensors, such as the reading of settings, most of its time."""
    root = Path(__file__).parents[1]
    files = [
        path
        for folder in ("representations", "distill", "world", "training", "pipelines")
        for path in root.glob(f"{folder}/**/*.py")
    ]
    annotated = [path.relative_to(root).with_suffix("") for path in files if "jaxtyping" in path.read_text()]
    return [".".join(("steindreamer", *path.parts)) for path in annotated]


install_import_hook(_modules_with_shapes(), "beartype.beartype")

from collections.abc import Iterator

import numba
import pytest
import torch

from steindreamer.distill import CONTROL_VARIATES, METHODS
from steindreamer.distill.priors.diffusion import FAMILIES
from steindreamer.pipelines.config import plugins
from steindreamer.pipelines.priors import PRIORS
from steindreamer.representations import REPRESENTATIONS


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests neither read nor fill the user's cache."""
    os.environ["STEINDREAMER_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(autouse=True, scope="session")
def own_cores() -> None:
    """Limit the threads of each of several test processes to its part of the cores."""
    processes = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    if processes > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // processes))
        numba.set_num_threads(max(1, numba.get_num_threads() // processes))


@pytest.fixture(autouse=True)
def own_components() -> Iterator[None]:
    """What a test registers is gone after it."""
    registries = (REPRESENTATIONS, METHODS, PRIORS, CONTROL_VARIATES, FAMILIES, plugins.LOADED)
    before = [dict(registry) for registry in registries]
    yield
    for registry, content in zip(registries, before, strict=True):
        registry.clear()
        registry.update(content)  # pyright: ignore[reportArgumentType, reportCallIssue]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, none found"))
