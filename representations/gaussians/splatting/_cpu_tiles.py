"""Compiled front-to-back compositing of projected Gaussians over 16x16 tiles, and its derivative.

Optimizations (each was measured; together they give a factor of ten):
- Gaussian-major order: each Gaussian is one flat loop over its rows of a tile, which LLVM vectorizes.
- The per-pixel state of a tile is one flat float32 array at constant offsets: no alias checks, no array views.
- Unsigned indices in the inner loops: signed ones need a negative-index test that prevents vectorization.
- exp is a polynomial: alpha is cut at 1/255, so only exp(-s) for s <= ln 255 is needed, to about 1e-6.
- The backward pass also runs front to back, with the remaining sum = total - prefix sum: the same transmittances and
  the same early stop as the forward pass, and no chain of divisions.
- The backward pass writes one gradient row per (tile, Gaussian) pair, and these rows are added serially: no atomics,
  hence the same bits for any number of threads.
"""

from typing import no_type_check

import numpy as np
from numba import njit, prange

from ...jit import FAST
from .semantics import MAX_ALPHA, MIN_ALPHA

f32, u64 = np.float32, np.uint64
ZERO, ONE, TWO, HALF = f32(0.0), f32(1.0), f32(2.0), f32(0.5)
MIN_ALPHA_32, MAX_ALPHA_32 = f32(MIN_ALPHA), f32(MAX_ALPHA)

TILE = 16
FEATURES = 7
"""Number of features: red, green, blue, depth, normal x, y, z. The kernels are unrolled for exactly these."""
OPAQUE = f32(1e-5)
"""A tile is finished when the transmittance of each of its pixels is below this."""
STRIDE = 16
"""Number of Gaussians between two tests of `OPAQUE`; a power of two."""

# Offsets of the per-pixel arrays inside a tile's state.
PIXELS = TILE * TILE
P1, P2, P3, P4, P5, P6, P7, P8, P9, P10, P11 = (u64(PIXELS * j) for j in range(1, 12))
# Offsets of the per-column sums of the backward pass: features 7, exponent, its moments x, y, xx, xy, yy.
SUMS = FEATURES + 6
S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12 = (u64(TILE * j) for j in range(1, SUMS))
TILE_64 = u64(TILE)

# exp(-u) on [0, 0.375], raised to the 16th power by four squarings: covers [0, 6], and ln 255 = 5.54.
_fit = np.polynomial.chebyshev.Chebyshev.interpolate(lambda u: np.exp(-u), 5, domain=[0, 0.375])
E0, E1, E2, E3, E4, E5 = (f32(v) for v in _fit.convert(kind=np.polynomial.Polynomial).coef)


@no_type_check
@njit(inline="always", **FAST)
def _exp_minus(s):
    u = min(max(s, ZERO), f32(6.0)) * f32(0.0625)
    e = E0 + u * (E1 + u * (E2 + u * (E3 + u * (E4 + u * E5))))
    e = e * e
    e = e * e
    e = e * e
    return e * e


@no_type_check
@njit(inline="always", **FAST)
def _clamped(value, count):
    """Round down to an integer in [0, count]; NaN gives 0."""
    if not value > ZERO:
        return 0
    return int(min(value, f32(count)))


@no_type_check
@njit(**FAST)
def bin_tiles(center, reach, order, width, height):
    """List the Gaussians of every tile in the given order.

    Returns the start of each tile's list (tiles + 1 numbers), the concatenated lists, and the tile indices by
    descending length of their lists.
    """
    columns, rows = (width + TILE - 1) // TILE, (height + TILE - 1) // TILE
    n = center.shape[0]
    box = np.zeros((n, 4), np.int32)
    count = np.zeros(columns * rows + 1, np.int64)
    inv_tile = ONE / f32(TILE)
    for g in range(n):
        if not reach[g, 0] > ZERO:
            continue
        box[g, 0] = _clamped((center[g, 0] - reach[g, 0]) * inv_tile, columns)
        box[g, 1] = _clamped((center[g, 0] + reach[g, 0]) * inv_tile + ONE, columns)
        box[g, 2] = _clamped((center[g, 1] - reach[g, 1]) * inv_tile, rows)
        box[g, 3] = _clamped((center[g, 1] + reach[g, 1]) * inv_tile + ONE, rows)
        for y in range(box[g, 2], box[g, 3]):
            for x in range(box[g, 0], box[g, 1]):
                count[y * columns + x + 1] += 1
    starts = np.cumsum(count)
    position = starts[:-1].copy()
    ids = np.empty(starts[-1], np.int32)
    for i in range(n):
        g = order[i]
        for y in range(box[g, 2], box[g, 3]):
            for x in range(box[g, 0], box[g, 1]):
                tile = y * columns + x
                ids[position[tile]] = g
                position[tile] += 1
    return starts, ids, np.argsort(-(starts[1:] - starts[:-1]))


@no_type_check
@njit(inline="always", **FAST)
def _pixel_range(y, reach):
    """First and last (exclusive) pixel of the tile rows that a Gaussian can overlap; never negative, for u64."""
    first = _clamped(y - reach + f32(0.999), TILE)
    last = _clamped(y + reach + ONE, TILE)
    return u64(TILE * first), u64(TILE * max(first, last))


@no_type_check
@njit(inline="always", **FAST)
def _is_opaque(state):
    most = ZERO
    for i in range(PIXELS):
        most = max(most, state[2 * PIXELS + i])
    return most < OPAQUE


@no_type_check
@njit(**FAST)
def _tile_forward(tx, ty, first, last, ids, center, shape, reach, features, image):
    # x, y, transmittance, 7 accumulated features
    state = np.zeros((3 + FEATURES) * PIXELS, np.float32)
    for i in range(PIXELS):
        state[i] = f32(i % TILE)
        state[PIXELS + i] = f32(i // TILE)
        state[2 * PIXELS + i] = ONE
    x0, y0 = f32(tx * TILE) + HALF, f32(ty * TILE) + HALF
    for k in range(first, last):
        g = ids[k]
        mx, my = center[g, 0] - x0, center[g, 1] - y0
        a, b, c, o = HALF * shape[g, 0], shape[g, 1], HALF * shape[g, 2], shape[g, 3]
        f0, f1, f2, f3 = features[g, 0], features[g, 1], features[g, 2], features[g, 3]
        f4, f5, f6 = features[g, 4], features[g, 5], features[g, 6]
        begin, end = _pixel_range(my, reach[g, 1])
        for i in range(begin, end):
            dx = state[i] - mx
            dy = state[i + P1] - my
            alpha = min(o * _exp_minus(dx * (a * dx + b * dy) + c * dy * dy), MAX_ALPHA_32)
            alpha = alpha if alpha >= MIN_ALPHA_32 else ZERO
            t = state[i + P2]
            w = alpha * t
            state[i + P2] = t - w
            state[i + P3] += w * f0
            state[i + P4] += w * f1
            state[i + P5] += w * f2
            state[i + P6] += w * f3
            state[i + P7] += w * f4
            state[i + P8] += w * f5
            state[i + P9] += w * f6
        if k % STRIDE == STRIDE - 1 and _is_opaque(state):
            break
    height, width = image.shape[:2]
    for y in range(min(TILE, height - ty * TILE)):
        for x in range(min(TILE, width - tx * TILE)):
            i = y * TILE + x
            for j in range(FEATURES):
                image[ty * TILE + y, tx * TILE + x, j] = state[(3 + j) * PIXELS + i]
            image[ty * TILE + y, tx * TILE + x, FEATURES] = ONE - state[2 * PIXELS + i]


@no_type_check
@njit(**FAST)
def _tile_backward(tx, ty, first, last, ids, center, shape, reach, features, image, g_image, g_pairs):
    """Write the gradient rows (center 2, shape 4, features 7) of one tile into g_pairs[first:last]."""
    # x, y, transmittance, the remaining sum_{j > i} w_j (f_j . g), and the 8 incoming gradients g
    state = np.zeros((5 + FEATURES) * PIXELS, np.float32)
    sums = np.zeros(SUMS * TILE, np.float32)
    height, width = image.shape[:2]
    for i in range(PIXELS):
        state[i] = f32(i % TILE)
        state[PIXELS + i] = f32(i // TILE)
    for y in range(min(TILE, height - ty * TILE)):
        for x in range(min(TILE, width - tx * TILE)):
            i = y * TILE + x
            total = ZERO
            for j in range(FEATURES + 1):
                v = g_image[ty * TILE + y, tx * TILE + x, j]
                state[(4 + j) * PIXELS + i] = v
                total += v * image[ty * TILE + y, tx * TILE + x, j]
            state[2 * PIXELS + i] = ONE
            state[3 * PIXELS + i] = total
    x0, y0 = f32(tx * TILE) + HALF, f32(ty * TILE) + HALF
    for k in range(first, last):
        g = ids[k]
        mx, my = center[g, 0] - x0, center[g, 1] - y0
        a, b, c, o = HALF * shape[g, 0], shape[g, 1], HALF * shape[g, 2], shape[g, 3]
        f0, f1, f2, f3 = features[g, 0], features[g, 1], features[g, 2], features[g, 3]
        f4, f5, f6 = features[g, 4], features[g, 5], features[g, 6]
        for i in range(SUMS * TILE):
            sums[i] = ZERO
        begin, end = _pixel_range(my, reach[g, 1])
        for row in range(begin, end, TILE_64):
            # One sum per column: sixteen lanes at once, in a summation order that is independent of the compiler.
            for x in range(TILE_64):
                i = row + x
                dx = state[i] - mx
                dy = state[i + P1] - my
                full = o * _exp_minus(dx * (a * dx + b * dy) + c * dy * dy)
                full = full if full >= MIN_ALPHA_32 else ZERO
                alpha = min(full, MAX_ALPHA_32)
                t = state[i + P2]
                w = alpha * t
                g0, g1, g2, g3 = state[i + P4], state[i + P5], state[i + P6], state[i + P7]
                g4, g5, g6, g7 = state[i + P8], state[i + P9], state[i + P10], state[i + P11]
                d = g0 * f0 + g1 * f1 + g2 * f2 + g3 * f3 + g4 * f4 + g5 * f5 + g6 * f6 + g7
                r = state[i + P3] - w * d
                state[i + P3] = r
                state[i + P2] = t - w
                # ds is the gradient of the exponent; it is 0 for a clamped alpha.
                ds = full * (r / (ONE - alpha) - t * d)
                ds = ds if full <= MAX_ALPHA_32 else ZERO
                ex = ds * dx
                ey = ds * dy
                sums[x] += w * g0
                sums[x + S1] += w * g1
                sums[x + S2] += w * g2
                sums[x + S3] += w * g3
                sums[x + S4] += w * g4
                sums[x + S5] += w * g5
                sums[x + S6] += w * g6
                sums[x + S7] += ds
                sums[x + S8] += ex
                sums[x + S9] += ey
                sums[x + S10] += ex * dx
                sums[x + S11] += ex * dy
                sums[x + S12] += ey * dy
        for q in range(SUMS):
            total = ZERO
            for x in range(TILE):
                total += sums[q * TILE + x]
            sums[q * TILE] = total
        d0, d1, d2, d3 = sums[0], sums[TILE], sums[2 * TILE], sums[3 * TILE]
        d4, d5, d6, s0 = sums[4 * TILE], sums[5 * TILE], sums[6 * TILE], sums[7 * TILE]
        sx, sy, sxx, sxy, syy = sums[8 * TILE], sums[9 * TILE], sums[10 * TILE], sums[11 * TILE], sums[12 * TILE]
        g_pairs[k, 0] = -(TWO * a * sx + b * sy)
        g_pairs[k, 1] = -(TWO * c * sy + b * sx)
        g_pairs[k, 2] = HALF * sxx
        g_pairs[k, 3] = sxy
        g_pairs[k, 4] = HALF * syy
        g_pairs[k, 5] = -s0 / o
        g_pairs[k, 6] = d0
        g_pairs[k, 7] = d1
        g_pairs[k, 8] = d2
        g_pairs[k, 9] = d3
        g_pairs[k, 10] = d4
        g_pairs[k, 11] = d5
        g_pairs[k, 12] = d6
        if k % STRIDE == STRIDE - 1 and _is_opaque(state):
            g_pairs[k + 1 : last] = ZERO
            break


@no_type_check
@njit(parallel=True, **FAST)
def composite(starts, ids, tiles, center, shape, reach, features, image, threads):
    """Composite features [n 7] into image [h w 8], whose last channel is the opacity."""
    columns = (image.shape[1] + TILE - 1) // TILE
    for thread in prange(threads):
        for i in range(thread, tiles.size, threads):
            t = tiles[i]
            tx, ty = t % columns, t // columns
            _tile_forward(tx, ty, starts[t], starts[t + 1], ids, center, shape, reach, features, image)


@no_type_check
@njit(parallel=True, **FAST)
def composite_backward(starts, ids, tiles, center, shape, reach, features, image, g_image, g_pairs, threads):
    """Gradient of `composite`: one row (center 2, shape 4, features 7) per entry of `ids`."""
    columns = (image.shape[1] + TILE - 1) // TILE
    for thread in prange(threads):
        for i in range(thread, tiles.size, threads):
            t = tiles[i]
            tx, ty = t % columns, t // columns
            _tile_backward(
                tx, ty, starts[t], starts[t + 1], ids, center, shape, reach, features, image, g_image, g_pairs
            )


@no_type_check
@njit(**FAST)
def add_pairs(ids, g_pairs, g_rows):
    """Add the rows of pairs to their Gaussians, g_rows[ids[k]] += g_pairs[k], in a fixed order."""
    for k in range(ids.size):
        for j in range(g_pairs.shape[1]):
            g_rows[ids[k], j] += g_pairs[k, j]
