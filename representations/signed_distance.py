"""Distance to a triangle mesh, negative inside."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from .mesh import TriangleMesh
from .triangle_tree import build_tree, signed_distances


def signed_distance(points: Float[Tensor, "n 3"], mesh: TriangleMesh) -> Float[Tensor, " n"]:
    """Exact distance (metres) to the nearest triangle; inside is where the winding number exceeds 1/2.

    So the mesh may consist of parts that overlap, and may have small holes, but its winding must be outward. Runs on
    the CPU whatever the device of `points`; carries no gradient.

    Sources: winding numbers [Jacobson et al. 2013], their fast evaluation [Barill et al. 2018].
    Raises ValueError for a mesh without faces.
    """
    if len(mesh.faces) == 0:
        raise ValueError("there is no distance to a mesh without faces")
    triangles = mesh.vertices.detach()[mesh.faces].double().cpu().contiguous().numpy()
    out = np.empty(len(points))
    signed_distances(build_tree(triangles), points.detach().double().cpu().contiguous().numpy(), out)
    return torch.from_numpy(out).to(points)
