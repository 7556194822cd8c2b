"""Binary STL for 3D printing."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from steindreamer.representations import TriangleMesh, face_normals

from ...files import write_atomically
from ..placing import Frame


def write_stl(path: Path, mesh: TriangleMesh, frame: Frame, unit_meters: float) -> None:
    """Write a binary STL with +Z up and front -Y.

    Args:
        path: the file.
        mesh: the mesh in the unit ball.
        frame: its frame.
        unit_meters: length of a unit of the file in meters.
    """
    x, y, z = frame.points(mesh.vertices).T / unit_meters
    corners = np.stack([x, -z, y], 1).astype(np.float32)[mesh.faces.numpy()]
    normals = face_normals(mesh.vertices, mesh.faces).numpy()
    rows = np.zeros(len(corners), np.dtype([("numbers", "<f4", 12), ("attribute", "<u2")]))
    rows["numbers"] = np.concatenate(
        [np.stack([normals[:, 0], -normals[:, 2], normals[:, 1]], 1), corners.reshape(-1, 9)], 1
    )
    write_atomically(path, b"steindreamer".ljust(80) + struct.pack("<I", len(rows)) + rows.tobytes())
