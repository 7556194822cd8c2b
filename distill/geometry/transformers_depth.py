"""Pretrained monocular depth models of transformers: DPT (MiDaS 3), Depth Anything, ZoeDepth."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from steindreamer.optional import needed

from ..files.digests import checked_digests
from ..files.weights import check_finite, check_report, tensor_files
from ..third_party.errors import foreign_errors
from ..third_party.quiet import quiet
from ..third_party.torchvision_compat import prepare_torchvision
from .base import GeometryEstimate
from .files import CONFIG_FILE, WEIGHTS_FILE
from .normals import normals_from_disparity
from .preprocessing import Preprocessing

ARCHITECTURES = ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation", "ZoeDepthForDepthEstimation")
PREPROCESSOR_FILE = "preprocessor_config.json"
Predicts = Literal["auto", "disparity", "depth"]
PREDICTIONS: tuple[Predicts, ...] = get_args(Predicts)
_LEFT_OVER = ("auxiliary_head.", "dpt.pooler.", "backbone.embeddings.mask_token")
"""Name prefixes of layers in published files that depth prediction does not use."""
NEAREST = 0.01
"""Least depth in meters; smaller predictions are clamped to it."""


class TransformersDepthEstimator(nn.Module):
    """A `GeometryEstimator` around a model whose output `model(pixel_values=...)` has `.predicted_depth`.

    The models were trained on clean images and are not conditioned on the noise level. They get the noisy image clamped
    to [0, 1] and smoothed by the resizing; the noise is not treated in any other way. Values outside [0, 1] have no
    gradient, which Stein's identity allows. Normals are computed from the disparity by `normals_from_disparity`.
    """

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, *, predicts_depth: bool, field_of_view: float = 40.0
    ) -> None:
        """Wrap a model.

        Args:
            predicts_depth: whether the model predicts depth instead of disparity.
            field_of_view: vertical angle in degrees.
        """
        super().__init__()
        self.model = model
        self.preprocessing = preprocessing
        self.predicts_depth = predicts_depth
        self.field_of_view = field_of_view

    def forward(self, image: Float[Tensor, "b 3 h w"], noise_level: Float[Tensor, " b"]) -> GeometryEstimate:
        predicted = self.model(pixel_values=self.preprocessing(image)).predicted_depth[:, None]
        disparity = 1 / predicted.clamp(min=NEAREST) if self.predicts_depth else predicted
        disparity = self.preprocessing.undo(disparity, *image.shape[-2:])
        return GeometryEstimate(disparity, normals_from_disparity(disparity, self.field_of_view))


def load_transformers_depth(folder: Path, predicts: str = "auto") -> TransformersDepthEstimator:
    """Load a model saved in a folder in the hub's layout, in float32, frozen. Nothing is downloaded.

    Args:
        predicts: `disparity` (larger is nearer), `depth`, or `auto`: as the configuration states. Models fine-tuned to
            depth within an architecture for disparity cannot be recognized by it.

    Raises ValueError for a model of another kind or incomplete or damaged files, and ImportError without transformers.
    """
    if predicts not in PREDICTIONS:
        raise ValueError(f"a depth model predicts {', '.join(PREDICTIONS)}; got {predicts!r}")
    prepare_torchvision()
    transformers = needed("transformers", "a depth model", "estimators")
    preprocessing = _read_preprocessing(folder)
    loader: Any = transformers.AutoModelForDepthEstimation
    weights = folder / WEIGHTS_FILE
    checked_digests(folder, (CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE))
    files = tensor_files([weights])
    with foreign_errors(f"{folder} cannot be loaded as a depth model"), quiet(transformers):
        model, report = loader.from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            dtype=torch.float32,
            ignore_mismatched_sizes=True,  # the report then lists them
            output_loading_info=True,
        )
    check_report(weights, {**report, "missing_keys": ()}, _LEFT_OVER)
    model.requires_grad_(False)
    _check_independence(model.config, folder)
    _check_complete(model, set(report["missing_keys"]), preprocessing, folder)
    check_finite(model.state_dict().items(), files)
    if _square_only(model.config):
        preprocessing = replace(preprocessing, keep_aspect_ratio=False)
    depth = _says_depth(model.config) if predicts == "auto" else predicts == "depth"
    return TransformersDepthEstimator(model, preprocessing, predicts_depth=depth).eval()


def _read_preprocessing(folder: Traversable) -> Preprocessing:
    file = folder.joinpath(PREPROCESSOR_FILE)
    try:
        return Preprocessing.from_json(file.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{file} does not specify how images are preprocessed: {error}") from error


def _says_depth(config: Any) -> bool:
    return config.model_type == "zoedepth" or getattr(config, "depth_estimation_type", "relative") == "metric"


def _square_only(config: Any) -> bool:
    """Whether transformers supports square inputs only, as for a DPT without a separate backbone."""
    return config.model_type == "dpt" and (config.is_hybrid or config.backbone_config is None)


def _check_independence(config: Any, folder: Path) -> None:
    if len(getattr(config, "bin_configurations", ())) > 1:
        raise ValueError(
            f"{folder} chooses between {len(config.bin_configurations)} heads by a vote over the whole batch, but "
            "every image must be processed independently: use a ZoeDepth model with one head, such as "
            "Intel/zoedepth-nyu"
        )


def _check_complete(model: Any, missing: set[str], preprocessing: Preprocessing, folder: Path) -> None:
    """Refuse missing weights, which would be random numbers, except those that do not affect the output.

    Published DPT files omit layers that are never called.
    """
    parameters = {name: value for name, value in model.named_parameters() if name in missing}
    if not parameters:
        return
    for value in parameters.values():
        value.requires_grad_(True)
    side = preprocessing.input_size(preprocessing.height, preprocessing.width)
    with torch.enable_grad(), foreign_errors(f"{folder} contains a model that does not take an image"):
        answer = model(pixel_values=torch.zeros(1, 3, *side)).predicted_depth.sum()
    gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if answer.requires_grad:
        gradients = torch.autograd.grad(answer, list(parameters.values()), allow_unused=True)
    model.requires_grad_(False)
    used = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if used:
        raise ValueError(f"{folder} lacks {len(used)} of the model's weights, such as {used[0]}: download it again")
