"""The distribution of a stage's training cameras, as frustums in the live view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
import viser
from scipy.spatial.transform import Rotation

from ..optimization.stage import Stage
from ..optimization.views import sample_views

COUNT = 48
"""Number of frustums."""
_SIZE = 0.12
_COLOR = (26, 122, 90)


def show_training_cameras(server: viser.ViserServer, stage: Stage) -> list[viser.CameraFrustumHandle]:
    """Add a sample of the cameras from which the stage renders at its present progress.

    The run's random numbers are not used. Returns the handles of the frustums.
    """
    views = replace(stage.config.views, per_step=COUNT, azimuths="stratified")
    cameras, _ = sample_views(views, 16, torch.Generator().manual_seed(0), stage.progress)
    poses = cameras.camera_to_world.double().numpy()
    focal = cameras.intrinsics[:, 1, 1].double().numpy()
    found = []
    for number, (pose, length) in enumerate(zip(poses, focal, strict=True)):
        x, y, z, w = Rotation.from_matrix(pose[:3, :3]).as_quat()
        found.append(
            server.scene.add_camera_frustum(
                f"/training_cameras/{number}",
                fov=float(2 * np.arctan(0.5 * cameras.height / length)),
                aspect=cameras.width / cameras.height,
                scale=_SIZE,
                color=_COLOR,
                wxyz=(w, x, y, z),
                position=pose[:3, 3],
            )
        )
    return found
