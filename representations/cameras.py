"""Pinhole cameras, batched.

Conventions of the whole product:
  world    right-handed, +Y up, the asset's front faces +Z, metres; the object lives in the unit ball (glTF axes).
  camera   `camera_to_world` has OpenCV axes: x right, y down, z forward. Pixel centres lie at half-integers.
  orbit    azimuth 0 looks at the front (camera on +Z) and grows towards +X; elevation is positive upwards; degrees.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one picture size."""

    camera_to_world: Float[Tensor, "b 4 4"]
    intrinsics: Float[Tensor, "b 3 3"]
    """Pixels: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."""
    height: int
    width: int

    @classmethod
    def orbit(
        cls,
        azimuth: Sequence[float] | Float[Tensor, " b"],
        elevation: Sequence[float] | Float[Tensor, " b"],
        *,
        distance: float | Float[Tensor, " b"] = 3.2,
        field_of_view: float | Float[Tensor, " b"] = 40.0,
        height: int = 128,
        width: int | None = None,
    ) -> Cameras:
        """Cameras around the origin. Angles and the vertical field of view in degrees, distance in metres.

        Raises ValueError if a distance is not positive, or a field of view not between 0 and 180.
        """
        azimuth_rad = torch.deg2rad(torch.as_tensor(azimuth, dtype=torch.float32))
        elevation_rad = torch.deg2rad(torch.as_tensor(elevation, dtype=torch.float32))
        azimuth_rad, elevation_rad = torch.broadcast_tensors(azimuth_rad, elevation_rad)
        radius = torch.as_tensor(distance, dtype=torch.float32).expand_as(azimuth_rad)
        if not bool((radius > 0).all()):
            raise ValueError(f"need distance > 0, got {distance}")

        sin_a, cos_a = azimuth_rad.sin(), azimuth_rad.cos()
        sin_e, cos_e = elevation_rad.sin(), elevation_rad.cos()
        backward = torch.stack([cos_e * sin_a, sin_e, cos_e * cos_a], -1)
        # The right vector needs no reference "up", so that looking straight down is well defined too.
        right = torch.stack([cos_a, torch.zeros_like(cos_a), -sin_a], -1)
        down = torch.linalg.cross(right, backward)
        pose = _pose(right, down, -backward, backward * radius[:, None])
        return cls(pose, _intrinsics(field_of_view, len(pose), height, width), height, width or height)

    @classmethod
    def look_at(
        cls,
        eye: Float[Tensor, "b 3"],
        target: Float[Tensor, "b 3"],
        up: Float[Tensor, "b 3"],
        *,
        field_of_view: float | Float[Tensor, " b"] = 40.0,
        height: int = 128,
        width: int | None = None,
    ) -> Cameras:
        """Cameras at `eye` with `target` in the middle of the picture and `up` (any length) upwards in it.

        World points in metres, the vertical field of view in degrees. Raises ValueError if the field of view is not
        between 0 and 180, or if `eye`, `target` and `up` leave the picture's axes open.
        """
        forward = F.normalize(target - eye, dim=1, eps=1e-12)
        across = torch.linalg.cross(forward, F.normalize(up, dim=1, eps=1e-12), dim=1)
        if not bool((across.norm(dim=1) > 1e-6).all()):
            raise ValueError("need `target` away from `eye`, and `up` not along the viewing direction")
        right = F.normalize(across, dim=1)
        pose = _pose(right, torch.linalg.cross(forward, right, dim=1), forward, eye)
        return cls(pose, _intrinsics(field_of_view, len(pose), height, width), height, width or height)

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def __getitem__(self, index: int | slice | Tensor) -> Cameras:
        """A sub-batch; an int keeps the batch axis (length 1). Raises IndexError for an int out of range."""
        if isinstance(index, int):
            # `range` knows negative numbers, and its IndexError is what ends a loop over the cameras.
            index = range(len(self))[index]
            index = slice(index, index + 1)
        return Cameras(self.camera_to_world[index], self.intrinsics[index], self.height, self.width)

    def to(self, device: torch.device | str) -> Cameras:
        return Cameras(self.camera_to_world.to(device), self.intrinsics.to(device), self.height, self.width)

    def resized(self, height: int, width: int | None = None) -> Cameras:
        """The same views at another picture size."""
        width = height if width is None else width
        scale = torch.tensor([width / self.width, height / self.height, 1.0], device=self.intrinsics.device)
        return Cameras(self.camera_to_world, self.intrinsics * scale[:, None], height, width)

    @property
    def position(self) -> Float[Tensor, "b 3"]:
        return self.camera_to_world[:, :3, 3]

    @property
    def forward(self) -> Float[Tensor, "b 3"]:
        """Unit viewing direction, world space."""
        return self.camera_to_world[:, :3, 2]

    @property
    def azimuth(self) -> Float[Tensor, " b"]:
        """Degrees in [-180, 180], of the direction from the scene back to the camera."""
        return torch.rad2deg(torch.atan2(-self.forward[:, 0], -self.forward[:, 2]))

    @property
    def elevation(self) -> Float[Tensor, " b"]:
        """Degrees in [-90, 90]."""
        return torch.rad2deg(torch.asin((-self.forward[:, 1]).clamp(-1, 1)))

    @property
    def world_to_camera(self) -> Float[Tensor, "b 4 4"]:
        rotation = self.camera_to_world[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.camera_to_world)
        out[:, :3, :3] = rotation
        out[:, :3, 3:] = -rotation @ self.camera_to_world[:, :3, 3:]
        out[:, 3, 3] = 1
        return out

    def project(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n"]]:
        """World points to pixels (x right, y down) and z-depth in metres (negative: behind the camera)."""
        pose = self.world_to_camera
        local = torch.einsum("bij,nj->bni", pose[:, :3, :3], points) + pose[:, None, :3, 3]
        depth = local[..., 2]
        safe = torch.where(depth.abs() > 1e-8, depth, torch.full_like(depth, 1e-8))
        focal, centre = self._focal_centre()
        return local[..., :2] / safe[..., None] * focal[:, None] + centre[:, None], depth

    def unproject(self, depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
        """World position of every pixel centre at the given z-depth."""
        return self.position[:, :, None, None] + self.rays() * depth

    def rays(self) -> Float[Tensor, "b 3 h w"]:
        """World-space direction through every pixel centre, scaled to unit z-depth (not unit length)."""
        device = self.intrinsics.device
        y, x = torch.meshgrid(
            torch.arange(self.height, device=device) + 0.5,
            torch.arange(self.width, device=device) + 0.5,
            indexing="ij",
        )
        focal, centre = self._focal_centre()
        xy = (torch.stack([x, y]) - centre[:, :, None, None]) / focal[:, :, None, None]
        local = torch.cat([xy, torch.ones_like(xy[:, :1])], 1)
        return torch.einsum("bij,bjhw->bihw", self.camera_to_world[:, :3, :3], local)

    def _focal_centre(self) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
        return self.intrinsics[:, (0, 1), (0, 1)], self.intrinsics[:, :2, 2]


def sphere_of_cameras(
    count: int,
    *,
    distance: float = 3.2,
    field_of_view: float = 40.0,
    height: int = 128,
    width: int | None = None,
) -> Cameras:
    """`count` orbit cameras spread evenly over the whole sphere (Fibonacci lattice), poles included nearly."""
    index = torch.arange(count, dtype=torch.float32) + 0.5
    elevation = torch.rad2deg(torch.asin(1 - 2 * index / count))
    azimuth = index * 360.0 * (math.sqrt(5) - 1) / 2 % 360
    return Cameras.orbit(azimuth, elevation, distance=distance, field_of_view=field_of_view, height=height, width=width)


def _pose(
    right: Float[Tensor, "b 3"], down: Float[Tensor, "b 3"], forward: Float[Tensor, "b 3"], eye: Float[Tensor, "b 3"]
) -> Float[Tensor, "b 4 4"]:
    pose = torch.eye(4).repeat(len(eye), 1, 1)
    pose[:, :3] = torch.stack([right, down, forward, eye], -1)
    return pose


def _intrinsics(
    field_of_view: float | Float[Tensor, " b"], count: int, height: int, width: int | None
) -> Float[Tensor, "b 3 3"]:
    fov = torch.as_tensor(field_of_view, dtype=torch.float32).expand(count)
    if not bool(((fov > 0) & (fov < 180)).all()):
        raise ValueError(f"need 0 < field_of_view < 180, got {field_of_view}")
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fov))
    out = torch.zeros(count, 3, 3)
    out[:, 0, 0] = out[:, 1, 1] = focal
    out[:, 0, 2], out[:, 1, 2], out[:, 2, 2] = (width or height) / 2, height / 2, 1
    return out
