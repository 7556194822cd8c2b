"""Compiled projection of 3D Gaussians to the image, and its derivative.

One row per Gaussian; a camera is `view` (world to camera, 4x4) and `intrinsics` (3x3). `semantics` defines the model;
`reference._project` is the reference implementation in torch.
"""

import math
from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import FAST
from .semantics import BLUR, JACOBIAN_MARGIN, MIN_ALPHA, NEAR

f32 = np.float32
ZERO, ONE, TWO = f32(0.0), f32(1.0), f32(2.0)
MARGIN, BLUR_32, NEAR_32, MIN_ALPHA_32 = f32(JACOBIAN_MARGIN), f32(BLUR), f32(NEAR), f32(MIN_ALPHA)
# Each thread processes whole blocks of this many Gaussians, so that the compiled loop, and every bit of the result, is
# the same for any number of threads.
BLOCK = 256


@no_type_check
@njit(inline="always", **FAST)
def _rotation(w, x, y, z):
    """Row-major rotation matrix of a quaternion of any length."""
    r = ONE / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * r, x * r, y * r, z * r
    return (
        ONE - TWO * (y * y + z * z),
        TWO * (x * y - w * z),
        TWO * (x * z + w * y),
        TWO * (x * y + w * z),
        ONE - TWO * (x * x + z * z),
        TWO * (y * z - w * x),
        TWO * (x * z - w * y),
        TWO * (y * z + w * x),
        ONE - TWO * (x * x + y * y),
    )


@no_type_check
@njit(inline="always", **FAST)
def _limits(focal, center, size):
    """The range of x/z (or y/z) in which the affine approximation is evaluated."""
    margin = MARGIN * size / focal
    return -center / focal - margin, (size - center) / focal + margin


@no_type_check
@njit(inline="always", **FAST)
def _to_camera(mean, view, row):
    return view[row, 0] * mean[0] + view[row, 1] * mean[1] + view[row, 2] * mean[2] + view[row, 3]


@no_type_check
@njit(inline="always", **FAST)
def _rotate(view, row, rotation, column):
    """Entry (row, column) of view rotation times Gaussian rotation."""
    return view[row, 0] * rotation[column] + view[row, 1] * rotation[3 + column] + view[row, 2] * rotation[6 + column]


@no_type_check
@njit(inline="always", **FAST)
def _shortest(scale):
    k = 0
    if scale[1] < scale[k]:
        k = 1
    if scale[2] < scale[k]:
        k = 2
    return k


@no_type_check
@njit(**FAST)
def _project_range(
    first, last, means, quaternions, scales, opacities, view, intrinsics, size, center, shape, reach, depth_normal
):
    """Project the Gaussians first to last - 1.

    Writes center [n 2] (pixels), shape [n 4] (inverse covariance xx, xy, yy; opacity), reach [n 2] (half-size of the
    bounding box in pixels; 0: not visible) and depth_normal [n 4] (z-depth and world normal). `size` is [width, height]
    in float32.
    """
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    width, height = size[0], size[1]
    x_low, x_high = _limits(fx, cx, width)
    y_low, y_high = _limits(fy, cy, height)
    for i in range(first, last):
        center[i, :] = ZERO
        shape[i, :] = ZERO
        reach[i, :] = ZERO
        depth_normal[i, :] = ZERO
        z = _to_camera(means[i], view, 2)
        opacity = opacities[i]
        if not (z >= NEAR_32 and opacity >= MIN_ALPHA_32):
            continue
        x = _to_camera(means[i], view, 0)
        y = _to_camera(means[i], view, 1)
        inv_z = ONE / z
        x_slope, y_slope = x * inv_z, y * inv_z
        x_near, y_near = min(max(x_slope, x_low), x_high), min(max(y_slope, y_low), y_high)
        rotation = _rotation(quaternions[i, 0], quaternions[i, 1], quaternions[i, 2], quaternions[i, 3])
        xx, xy, yy, area = BLUR_32, ZERO, BLUR_32, ZERO
        for j in range(3):
            c0, c1, c2 = _rotate(view, 0, rotation, j), _rotate(view, 1, rotation, j), _rotate(view, 2, rotation, j)
            u = fx * inv_z * (c0 - x_near * c2) * scales[i, j]
            v = fy * inv_z * (c1 - y_near * c2) * scales[i, j]
            xx += u * u
            xy += u * v
            yy += v * v
            side = (c0 * x_near + c1 * y_near + c2) * scales[i, (j + 1) % 3] * scales[i, (j + 2) % 3]
            area += side * side
        # Beyond this squared distance alpha falls below MIN_ALPHA.
        cut = TWO * math.log(opacity / MIN_ALPHA_32)
        x_reach, y_reach = math.sqrt(cut * xx), math.sqrt(cut * yy)
        u, v = fx * x_slope + cx, fy * y_slope + cy
        if not (u + x_reach > ZERO and u - x_reach < width and v + y_reach > ZERO and v - y_reach < height):
            continue
        # xx * yy - xy * xy without cancellation, which would leave no correct digit for a long thin Gaussian near the
        # camera: the determinant without the blur is also a sum of squares (Cauchy-Binet).
        zoom = fx * fy * inv_z * inv_z
        inv_det = ONE / (BLUR_32 * (xx + yy - BLUR_32) + zoom * zoom * area)
        center[i, 0], center[i, 1] = u, v
        shape[i, 0], shape[i, 1], shape[i, 2], shape[i, 3] = yy * inv_det, -xy * inv_det, xx * inv_det, opacity
        reach[i, 0], reach[i, 1] = x_reach, y_reach
        k = _shortest(scales[i])
        along = (
            _rotate(view, 0, rotation, k) * x + _rotate(view, 1, rotation, k) * y + _rotate(view, 2, rotation, k) * z
        )
        sign = -ONE if along > ZERO else ONE
        depth_normal[i, 0] = z
        for j in range(3):
            depth_normal[i, 1 + j] = sign * rotation[3 * j + k]


@no_type_check
@njit(parallel=True, **FAST)
def project(*arguments):
    """Project all Gaussians; the arguments are those of `_project_range` after `last`."""
    n = len(arguments[0])
    for block in prange((n + BLOCK - 1) // BLOCK):
        _project_range(block * BLOCK, min(n, (block + 1) * BLOCK), *arguments)


@no_type_check
@njit(**FAST)
def _project_backward_range(
    first,
    last,
    means,
    quaternions,
    scales,
    view,
    intrinsics,
    size,
    shape,
    reach,
    depth_normal,
    g_center,
    g_shape,
    g_depth_normal,
    g_means,
    g_quaternions,
    g_scales,
    g_opacities,
):
    """Add the gradient of one camera to the last four arguments; invisible Gaussians get none."""
    fx, fy, cx, cy = intrinsics[0, 0], intrinsics[1, 1], intrinsics[0, 2], intrinsics[1, 2]
    x_low, x_high = _limits(fx, cx, size[0])
    y_low, y_high = _limits(fy, cy, size[1])
    g_rotation = np.empty(9, np.float32)
    for i in range(first, last):
        if not reach[i, 0] > ZERO:
            continue
        x = _to_camera(means[i], view, 0)
        y = _to_camera(means[i], view, 1)
        inv_z = ONE / depth_normal[i, 0]
        x_slope, y_slope = x * inv_z, y * inv_z
        x_near, y_near = min(max(x_slope, x_low), x_high), min(max(y_slope, y_low), y_high)
        rotation = _rotation(quaternions[i, 0], quaternions[i, 1], quaternions[i, 2], quaternions[i, 3])

        # Covariance C with inverse P: dC = -P dP P. The off-diagonal gradient counts two entries.
        a, b, c = shape[i, 0], shape[i, 1], shape[i, 2]
        ga, gb, gc = g_shape[i, 0], f32(0.5) * g_shape[i, 1], g_shape[i, 2]
        t00, t01, t10, t11 = a * ga + b * gb, a * gb + b * gc, b * ga + c * gb, b * gb + c * gc
        gxx, gxy, gyy = -(t00 * a + t01 * b), -(t00 * b + t01 * c), -(t10 * b + t11 * c)

        x_zoom, y_zoom = fx * inv_z, fy * inv_z
        gx, gy = g_center[i, 0] * x_zoom, g_center[i, 1] * y_zoom
        gz = g_depth_normal[i, 0] - gx * x_slope - gy * y_slope
        g_x_zoom = g_y_zoom = g_x_near = g_y_near = ZERO
        g_rotation[:] = ZERO
        for j in range(3):
            c0, c1, c2 = _rotate(view, 0, rotation, j), _rotate(view, 1, rotation, j), _rotate(view, 2, rotation, j)
            # Column j of the footprint is scale * zoom * (c01 - near * c2); the covariance is footprint footprint^T.
            u, v = c0 - x_near * c2, c1 - y_near * c2
            fu, fv = x_zoom * u, y_zoom * v
            s = scales[i, j]
            gu = TWO * s * (gxx * fu + gxy * fv)
            gv = TWO * s * (gxy * fu + gyy * fv)
            g_scales[i, j] += gu * fu + gv * fv
            g_x_zoom += gu * s * u
            g_y_zoom += gv * s * v
            d0, d1 = gu * s * x_zoom, gv * s * y_zoom
            g_x_near -= d0 * c2
            g_y_near -= d1 * c2
            d2 = -(d0 * x_near + d1 * y_near)
            for k in range(3):
                g_rotation[3 * k + j] += view[0, k] * d0 + view[1, k] * d1 + view[2, k] * d2
        gz -= (g_x_zoom * x_zoom + g_y_zoom * y_zoom) * inv_z
        if x_low <= x_slope <= x_high:
            gx += g_x_near * inv_z
            gz -= g_x_near * inv_z * x_slope
        if y_low <= y_slope <= y_high:
            gy += g_y_near * inv_z
            gz -= g_y_near * inv_z * y_slope
        for k in range(3):
            g_means[i, k] += view[0, k] * gx + view[1, k] * gy + view[2, k] * gz
        g_opacities[i] += g_shape[i, 3]

        k = _shortest(scales[i])
        facing = (
            depth_normal[i, 1] * rotation[k]
            + depth_normal[i, 2] * rotation[3 + k]
            + depth_normal[i, 3] * rotation[6 + k]
        )
        sign = ONE if facing > ZERO else -ONE
        for j in range(3):
            g_rotation[3 * j + k] += sign * g_depth_normal[i, 1 + j]
        _rotation_backward(quaternions[i], g_rotation, g_quaternions[i])


@no_type_check
@njit(inline="always", **FAST)
def _rotation_backward(quaternion, g, g_quaternion):
    w, x, y, z = quaternion[0], quaternion[1], quaternion[2], quaternion[3]
    r = ONE / math.sqrt(w * w + x * x + y * y + z * z)
    w, x, y, z = w * r, x * r, y * r, z * r
    gw = TWO * (x * (g[7] - g[5]) + y * (g[2] - g[6]) + z * (g[3] - g[1]))
    gx = TWO * (-TWO * x * (g[4] + g[8]) + y * (g[1] + g[3]) + z * (g[2] + g[6]) + w * (g[7] - g[5]))
    gy = TWO * (x * (g[1] + g[3]) - TWO * y * (g[0] + g[8]) + z * (g[5] + g[7]) + w * (g[2] - g[6]))
    gz = TWO * (x * (g[2] + g[6]) + y * (g[5] + g[7]) - TWO * z * (g[0] + g[4]) + w * (g[3] - g[1]))
    along = gw * w + gx * x + gy * y + gz * z
    g_quaternion[0] += (gw - along * w) * r
    g_quaternion[1] += (gx - along * x) * r
    g_quaternion[2] += (gy - along * y) * r
    g_quaternion[3] += (gz - along * z) * r


@no_type_check
@njit(parallel=True, **FAST)
def project_backward(*arguments):
    """Gradient of `project`; the arguments are those of `_project_backward_range` after `last`."""
    n = len(arguments[0])
    for block in prange((n + BLOCK - 1) // BLOCK):
        _project_backward_range(block * BLOCK, min(n, (block + 1) * BLOCK), *arguments)
