"""Transfer of a trained texture to another mesh of the same surface."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from numpy import ndarray

from steindreamer.representations import SurfaceIndex, TexturedMesh, TriangleMesh
from steindreamer.representations.mesh.render import sample_texture

from .bake import to_bytes
from .texels import Texels, rasterize_uvs


def transfer_texture(scene: TexturedMesh, mesh: TriangleMesh, texels: Texels) -> UInt8[ndarray, "s s 3"]:
    """The base color atlas in sRGB of an unwrapped mesh, from the texels of the trained one.

    Each texel copies the closest point of the trained mesh that faces the same way. A larger texture is averaged to the
    size of the new one first.

    Args:
        scene: the trained mesh.
        mesh: another mesh of the same surface, with normals and uvs.
        texels: its texels.
    """
    trained = scene.mesh()
    assert trained.texture is not None and trained.uvs is not None and mesh.normals is not None
    size, new_size = trained.texture.shape[1], len(texels.nearest)
    own = rasterize_uvs(trained, size)
    # Gaps between the charts are filled, since averaging reads them.
    filled = own.image(trained.texture.permute(1, 2, 0).numpy()[own.rows, own.columns])
    texture = torch.from_numpy(filled).permute(2, 0, 1)
    if new_size < size:
        scaled = F.interpolate(
            texture[None], (new_size, new_size), mode="bilinear", antialias=True, align_corners=False
        )
        texture = scaled[0]
    points, normals = (torch.from_numpy(texels.interpolate(values)) for values in (mesh.vertices, mesh.normals))
    uvs = SurfaceIndex(trained).closest(points, normals).interpolate(trained.uvs.to(points), trained).to(texture)
    return to_bytes(texels.image(sample_texture(texture, uvs.T[None, :, :, None])[0, :, :, 0].T.numpy()))
