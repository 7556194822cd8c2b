"""Pretrained monocular depth models of transformers: DPT (MiDaS 3), Depth Anything, ZoeDepth."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ..digests import checked_digests
from ..estimator import GeometryEstimate
from ..estimator_files import CONFIG_FILE, WEIGHTS_FILE
from ..foreign_errors import foreign_errors
from ..quiet_libraries import quiet
from ..torchvision_compat import prepare_torchvision
from ..weight_files import check_finite, check_report, tensor_files
from .normals import normals_from_disparity
from .preprocessing import Preprocessing

ARCHITECTURES = ("DPTForDepthEstimation", "DepthAnythingForDepthEstimation", "ZoeDepthForDepthEstimation")
PREPROCESSOR_FILE = "preprocessor_config.json"
PREDICTIONS = ("auto", "disparity", "depth")
_LEFT_OVER = ("auxiliary_head.", "dpt.pooler.", "backbone.embeddings.mask_token")
"""Beginnings of names of layers that depth does not need, in published files."""
NEAREST = 0.01
"""Metres; what is predicted to be nearer counts as this."""


class TransformersDepthEstimator(nn.Module):
    """Implements `GeometryEstimator` with a model that answers `model(pixel_values=...)` with `.predicted_depth`.

    The models were trained on clean pictures and are not told the noise level: they see the noisy picture clamped to
    [0, 1] and smoothed by the resizing, no more is done about the noise. What leaves [0, 1] has no gradient, which
    Stein's identity allows. Normals follow from the disparity, see `normals_from_disparity`.
    """

    def __init__(
        self, model: nn.Module, preprocessing: Preprocessing, *, predicts_depth: bool, field_of_view: float = 40.0
    ) -> None:
        """`predicts_depth`: the model answers with depth, not disparity. `field_of_view` in degrees, vertical."""
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
    """The model saved in a folder in the hub's layout, in float32, frozen. Nothing is fetched.

    `predicts` is `disparity` (larger is nearer), `depth`, or `auto`: what the configuration says. Models fine-tuned to
    depth within an architecture for disparity cannot be told from it. Raises ValueError for a model of another kind,
    incomplete or damaged files, and ImportError without transformers.
    """
    if predicts not in PREDICTIONS:
        raise ValueError(f"a depth model predicts {', '.join(PREDICTIONS)}; got {predicts!r}")
    prepare_torchvision()
    try:
        import transformers
    except ModuleNotFoundError as error:
        raise ImportError(
            f"depth models need the package {error.name!r}: pip install 'steindreamer[estimators]'"
        ) from None
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
            ignore_mismatched_sizes=True,  # the report then names them
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
        raise ValueError(f"{file} does not say how pictures are prepared: {error}") from error


def _says_depth(config: Any) -> bool:
    return config.model_type == "zoedepth" or getattr(config, "depth_estimation_type", "relative") == "metric"


def _square_only(config: Any) -> bool:
    """transformers takes the patches of a DPT without a separate backbone for a square."""
    return config.model_type == "dpt" and (config.is_hybrid or config.backbone_config is None)


def _check_independence(config: Any, folder: Path) -> None:
    if len(getattr(config, "bin_configurations", ())) > 1:
        raise ValueError(
            f"{folder} chooses between {len(config.bin_configurations)} heads by a vote of all pictures together, and "
            "every picture must be treated on its own: use a ZoeDepth with one head, such as Intel/zoedepth-nyu"
        )


def _check_complete(model: Any, missing: set[str], preprocessing: Preprocessing, folder: Path) -> None:
    """Refuse random numbers in place of weights, except where the answer does not depend on them.

    Published DPT files leave out layers that are never called.
    """
    parameters = {name: value for name, value in model.named_parameters() if name in missing}
    if not parameters:
        return
    for value in parameters.values():
        value.requires_grad_(True)
    side = preprocessing.input_size(preprocessing.height, preprocessing.width)
    with torch.enable_grad(), foreign_errors(f"{folder} holds a model that takes no picture"):
        answer = model(pixel_values=torch.zeros(1, 3, *side)).predicted_depth.sum()
    gradients: tuple[Tensor | None, ...] = (None,) * len(parameters)
    if answer.requires_grad:
        gradients = torch.autograd.grad(answer, list(parameters.values()), allow_unused=True)
    model.requires_grad_(False)
    used = [name for name, gradient in zip(parameters, gradients, strict=True) if gradient is not None]
    if used:
        raise ValueError(f"{folder} lacks {len(used)} of the model's weights, such as {used[0]}: fetch it again")
