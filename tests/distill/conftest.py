"""Fixtures of a small world: an exact prior, a geometry estimator, a rendered ball."""

from __future__ import annotations

import pytest
import torch
from small_world import SIZE, TwoModes, make_estimator, make_geometry
from torch import Tensor

from steindreamer.distill import GeometryBuffers, GeometryEstimator


@pytest.fixture
def prior() -> TwoModes:
    return TwoModes()


@pytest.fixture
def estimator() -> GeometryEstimator:
    return make_estimator()


@pytest.fixture
def geometry() -> GeometryBuffers:
    return make_geometry(2)


@pytest.fixture
def image() -> Tensor:
    """Two images, sRGB, that ask for a gradient."""
    return torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(5)).requires_grad_()
