"""Gradients of a 2D prior: score distillation as one estimator with exchangeable control variates."""

from .baselines import (
    BASELINES,
    BUILT_IN_TERMS,
    Baseline,
    BaselineEntry,
    ConstantBaseline,
    DepthBaseline,
    NoiseLevel,
    NormalBaseline,
    register_baseline,
    weighted_pearson,
)
from .basis import SeparableBasis
from .coefficients import Coefficients, FixedCoefficients, Gram, Observation, RunningRegression, SecondMomentDescent
from .control_variates import ControlVariate, LearningControlVariate, NoiseTerm, SpectralTerm, SteinTerm
from .distiller import Distillation, Distiller, VarianceProbe, checked_terms
from .estimator import GeometryEstimate, GeometryEstimator
from .guide import Guide
from .low_rank import LowRankTerm
from .methods import (
    METHODS,
    ASDConfig,
    BridgeConfig,
    CSDConfig,
    ISMConfig,
    NFSDConfig,
    ResidualConfig,
    SDIConfig,
    SDSConfig,
    SSDConfig,
    VSDConfig,
    control_variate_names,
    register_method,
)
from .mixture import ExactPrior, GaussianMixture, MixtureCondition, MixturePrior, image_like_mixture
from .predictions import PREDICTION_TYPES, clean_from_noise, noise_from_output, output_error
from .prior import (
    TEXTS,
    Answering,
    CopyPrediction,
    LowRankCopyable,
    MicroBatched,
    NoisePrediction,
    Prior,
    Question,
    ask,
    encode,
    guided_noise,
)
from .pullback import Pullback
from .residuals import Draw, Estimate, Residual
from .schedule import NoiseSchedule, NoisySample
from .student import StudentTerm
from .timesteps import TimestepConfig, TimestepDraw, TimestepSampler, dreamtime_weights
from .torchvision_compat import watch_torchvision
from .vsd import LearnedScore, Lesson
from .weighting import WEIGHTINGS

# For scripts that import diffusers or transformers themselves.
watch_torchvision()

__all__ = [
    "BASELINES",
    "BUILT_IN_TERMS",
    "METHODS",
    "PREDICTION_TYPES",
    "TEXTS",
    "WEIGHTINGS",
    "ASDConfig",
    "Answering",
    "Baseline",
    "BaselineEntry",
    "BridgeConfig",
    "CSDConfig",
    "Coefficients",
    "ConstantBaseline",
    "ControlVariate",
    "CopyPrediction",
    "DepthBaseline",
    "Distillation",
    "Distiller",
    "Draw",
    "Estimate",
    "ExactPrior",
    "FixedCoefficients",
    "GaussianMixture",
    "GeometryEstimate",
    "GeometryEstimator",
    "Gram",
    "Guide",
    "ISMConfig",
    "LearnedScore",
    "LearningControlVariate",
    "Lesson",
    "LowRankCopyable",
    "LowRankTerm",
    "MicroBatched",
    "MixtureCondition",
    "MixturePrior",
    "NFSDConfig",
    "NoiseLevel",
    "NoisePrediction",
    "NoiseSchedule",
    "NoiseTerm",
    "NoisySample",
    "NormalBaseline",
    "Observation",
    "Prior",
    "Pullback",
    "Question",
    "Residual",
    "ResidualConfig",
    "RunningRegression",
    "SDIConfig",
    "SDSConfig",
    "SSDConfig",
    "SecondMomentDescent",
    "SeparableBasis",
    "SpectralTerm",
    "SteinTerm",
    "StudentTerm",
    "TimestepConfig",
    "TimestepDraw",
    "TimestepSampler",
    "VSDConfig",
    "VarianceProbe",
    "ask",
    "checked_terms",
    "clean_from_noise",
    "control_variate_names",
    "dreamtime_weights",
    "encode",
    "guided_noise",
    "image_like_mixture",
    "noise_from_output",
    "output_error",
    "register_baseline",
    "register_method",
    "weighted_pearson",
]
