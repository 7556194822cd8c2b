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
    """The trained texels, and those of the file where nothing is painted; all textures of the file in one image.

    Painted texels between the charts copy the nearest one on a chart of the same texture, if that is painted.
    """
    painted, on_chart = scene.painted.cpu(), scene.charts.cpu() > 0
    trained_texels = torch.from_numpy(to_bytes(scene.texture.permute(1, 2, 0).cpu().numpy()))
    out = torch.where(painted[..., None], trained_texels, scene.source.cpu())
    for atlas in scene.atlases():
        texels, trained, charts = (atlas.region.of(each).numpy() for each in (out, painted, on_chart))
        row, column = np.asarray(ndimage.distance_transform_edt(~charts, return_distances=False, return_indices=True))
        between = trained & ~charts & trained[row, column]
        texels[between] = texels[row[between], column[between]]
    return out.numpy()
