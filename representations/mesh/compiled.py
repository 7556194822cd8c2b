"""Conversion of tensors to the arrays of compiled CPU kernels."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor


def is_compiled(values: Tensor) -> bool:
    """Whether the compiled kernels take the tensor: float32 in CPU memory."""
    return values.device.type == "cpu" and values.dtype == torch.float32


def face_array(faces: Int64[Tensor, "f 3"]) -> np.ndarray:
    """The faces as a contiguous int32 array."""
    return faces.to("cpu", torch.int32).contiguous().numpy()
