"""Batched pinhole cameras.

Conventions of all packages:
  world    right-handed, +Y up, the asset's front faces +Z, meters; the object is in the unit ball (glTF axes).
  camera   `camera_to_world` has OpenCV axes: x right, y down, z forward. Pixel centers lie at half-integers.
  orbit    azimuth 0 looks at the front (camera on +Z) and grows toward +X; elevation is positive upward; degrees.
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
    """A batch of pinhole cameras with the same image size.

    Example:
        >>> cameras = Cameras.orbit([0.0, 90.0], [15.0, 15.0], distance=3.2, field_of_view=40.0, height=64)
        >>> len(cameras), cameras.rays().shape
        (2, torch.Size([2, 3, 64, 64]))
    """

    camera_to_world: Float[Tensor, "b 4 4"]
    """Camera poses with OpenCV axes: x right, y down, z forward; meters."""
    intrinsics: Float[Tensor, "b 3 3"]
    """Intrinsics in pixels: [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]."""
    height: int
    """Image height in pixels."""
    width: int
    """Image width in pixels."""

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
        """Cameras on a sphere around the origin that look at the origin.

        Args:
            azimuth: Degrees; 0 looks at the front of the object (camera on +Z), 90 is on +X.
            elevation: Degrees, positive above the object.
            distance: Meters from the origin.
            field_of_view: Vertical field of view in degrees.
            height: Image height in pixels.
            width: Image width in pixels; None for a square image.

        Raises:
            ValueError: A distance is not positive, or a field of view is not between 0 and 180.
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
        # The right vector is computed without an "up" vector, so that looking straight down is well defined.
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
        """Cameras at `eye` that look at `target`.

        Args:
            eye: Camera positions in the world, meters.
            target: World points at the image center, meters.
            up: World directions that point upward in the image; any length.
            field_of_view: Vertical field of view in degrees.
            height: Image height in pixels.
            width: Image width in pixels; None for a square image.

        Raises:
            ValueError: The field of view is not between 0 and 180, `target` is at `eye`, or `up` is parallel to the
                viewing direction.
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
            # `range` handles negative indices, and its IndexError ends a loop over the cameras.
            index = range(len(self))[index]
            index = slice(index, index + 1)
        return Cameras(self.camera_to_world[index], self.intrinsics[index], self.height, self.width)

    def to(self, device: torch.device | str) -> Cameras:
        """Copy the cameras to another device."""
        return Cameras(self.camera_to_world.to(device), self.intrinsics.to(device), self.height, self.width)

    def resized(self, height: int, width: int | None = None) -> Cameras:
        """Return the cameras with another image size in pixels; the image is square if `width` is None."""
        width = height if width is None else width
        scale = torch.tensor([width / self.width, height / self.height, 1.0], device=self.intrinsics.device)
        return Cameras(self.camera_to_world, self.intrinsics * scale[:, None], height, width)

    def cropped(self, left: Float[Tensor, " b"], top: Float[Tensor, " b"], size: Float[Tensor, " b"]) -> Cameras:
        """Return cameras whose whole image, with as many pixels, is a part of this one.

        Args:
            left: Left edge of each part, as a fraction of the width.
            top: Upper edge of each part, as a fraction of the height.
            size: Width and height of each part, as a fraction of those of the image; positive.
        """
        corner = torch.stack([left * self.width, top * self.height], 1).to(self.intrinsics)
        intrinsics = self.intrinsics.clone()
        intrinsics[:, :2, 2] -= corner
        intrinsics[:, :2] /= size.to(intrinsics)[:, None, None]
        return Cameras(self.camera_to_world, intrinsics, self.height, self.width)

    @property
    def position(self) -> Float[Tensor, "b 3"]:
        """Camera positions in the world, meters."""
        return self.camera_to_world[:, :3, 3]

    @property
    def forward(self) -> Float[Tensor, "b 3"]:
        """Unit viewing directions in world space."""
        return self.camera_to_world[:, :3, 2]

    @property
    def azimuth(self) -> Float[Tensor, " b"]:
        """Azimuth of the direction from the scene to the camera, degrees in [-180, 180]."""
        return torch.rad2deg(torch.atan2(-self.forward[:, 0], -self.forward[:, 2]))

    @property
    def elevation(self) -> Float[Tensor, " b"]:
        """Elevation of the direction from the scene to the camera, degrees in [-90, 90]."""
        return torch.rad2deg(torch.asin((-self.forward[:, 1]).clamp(-1, 1)))

    @property
    def world_to_camera(self) -> Float[Tensor, "b 4 4"]:
        """The inverse of `camera_to_world`."""
        rotation = self.camera_to_world[:, :3, :3].transpose(1, 2)
        out = torch.zeros_like(self.camera_to_world)
        out[:, :3, :3] = rotation
        out[:, :3, 3:] = -rotation @ self.camera_to_world[:, :3, 3:]
        out[:, 3, 3] = 1
        return out

    def project(self, points: Float[Tensor, "n 3"]) -> tuple[Float[Tensor, "b n 2"], Float[Tensor, "b n"]]:
        """Project world points (meters) to pixels (x right, y down) and z-depth (meters; < 0: behind)."""
        pose = self.world_to_camera
        local = torch.einsum("bij,nj->bni", pose[:, :3, :3], points) + pose[:, None, :3, 3]
        depth = local[..., 2]
        safe = torch.where(depth.abs() > 1e-8, depth, torch.full_like(depth, 1e-8))
        focal, center = self._focal_center()
        return local[..., :2] / safe[..., None] * focal[:, None] + center[:, None], depth

    def unproject(self, depth: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 3 h w"]:
        """World positions (meters) of the pixel centers at the given z-depth (meters)."""
        return self.position[:, :, None, None] + self.rays() * depth

    def rays(self) -> Float[Tensor, "b 3 h w"]:
        """World-space directions through the pixel centers, scaled to unit z-depth (not unit length)."""
        device = self.intrinsics.device
        y, x = torch.meshgrid(
            torch.arange(self.height, device=device) + 0.5,
            torch.arange(self.width, device=device) + 0.5,
            indexing="ij",
        )
        focal, center = self._focal_center()
        xy = (torch.stack([x, y]) - center[:, :, None, None]) / focal[:, :, None, None]
        local = torch.cat([xy, torch.ones_like(xy[:, :1])], 1)
        return torch.einsum("bij,bjhw->bihw", self.camera_to_world[:, :3, :3], local)

    def _focal_center(self) -> tuple[Float[Tensor, "b 2"], Float[Tensor, "b 2"]]:
        return self.intrinsics[:, (0, 1), (0, 1)], self.intrinsics[:, :2, 2]


def sphere_of_cameras(
    count: int,
    *,
    distance: float = 3.2,
    field_of_view: float = 40.0,
    height: int = 128,
    width: int | None = None,
) -> Cameras:
    """`count` orbit cameras distributed evenly over the sphere by a Fibonacci lattice, almost up to the poles.

    Example:
        >>> from steindreamer.representations import sphere_of_cameras
        >>> len(sphere_of_cameras(16, height=64))
        16
    """
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
