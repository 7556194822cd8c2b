"""The texture of a retextured mesh as it is written to the file."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import UInt8
from scipy import ndimage

from steindreamer.representations import RetexturedMesh

from ..meshing.bake import to_bytes


@torch.no_grad()
def painted_image(scene: RetexturedMesh) -> UInt8[np.ndarray, "h w 3"]:
    """The trained texels, and those of the file where nothing is painted.

    Painted texels between the charts copy the nearest one on a chart, if that is painted.
    """
    painted, on_chart = scene.painted.cpu().numpy(), scene.charts.cpu().numpy() > 0
    trained = to_bytes(scene.texture.permute(1, 2, 0).cpu().numpy())
    out = np.where(painted[..., None], trained, scene.source.cpu().numpy())
    row, column = np.asarray(ndimage.distance_transform_edt(~on_chart, return_distances=False, return_indices=True))
    between = painted & ~on_chart & painted[row, column]
    out[between] = out[row[between], column[between]]
    return out
