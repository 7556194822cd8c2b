"""Gradients of a 2D prior: score distillation as one estimator with exchangeable control variates."""

from .control_variates.baselines import NoiseLevel
from .control_variates.config import ControlVariateConfig
from .control_variates.registry import CONTROL_VARIATES, list_control_variates, register_control_variate, stein_entry
from .control_variates.terms import ControlVariate
from .distiller import Distillation, Distiller
from .geometry.base import GeometryEstimate, GeometryEstimator
from .geometry_buffers import GeometryBuffers
from .methods.base import MethodConfig, ResidualConfig
from .methods.registry import METHODS, list_methods, register_method
from .methods.sds import SDSConfig
from .methods.ssd import SSDConfig
from .noise.schedule import NoiseSchedule, NoisySample
from .noise.source import NoiseSource
from .noise.timesteps import TimestepConfig
from .priors.base import NoiseRequest, Prior
from .priors.mixture import ExactPrior, GaussianMixture, MixtureCondition
from .residual import Draw, Estimate, Residual
from .third_party.torchvision_compat import watch_torchvision

# For scripts that import diffusers or transformers themselves.
watch_torchvision()

__all__ = [
    "CONTROL_VARIATES",
    "METHODS",
    "ControlVariate",
    "ControlVariateConfig",
    "Distillation",
    "Distiller",
    "Draw",
    "Estimate",
    "ExactPrior",
    "GaussianMixture",
    "GeometryBuffers",
    "GeometryEstimate",
    "GeometryEstimator",
    "MethodConfig",
    "MixtureCondition",
    "NoiseLevel",
    "NoiseRequest",
    "NoiseSchedule",
    "NoiseSource",
    "NoisySample",
    "Prior",
    "Residual",
    "ResidualConfig",
    "SDSConfig",
    "SSDConfig",
    "TimestepConfig",
    "list_control_variates",
    "list_methods",
    "register_control_variate",
    "register_method",
    "stein_entry",
]
