"""Gradients of a 2D prior: score distillation as one estimator with exchangeable control variates."""

from .control_variates import ControlVariate, Guide
from .prior import NoisePrediction, Prior
from .schedule import NoiseSchedule, NoisySample

__all__ = ["ControlVariate", "Guide", "NoisePrediction", "NoiseSchedule", "NoisySample", "Prior"]
