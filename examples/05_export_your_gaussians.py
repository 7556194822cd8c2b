"""From 3D Gaussians of any program (3DGS .ply, +Y up) to a game-ready GLB: closed, simplified, unwrapped, baked.

python examples/05_export_your_gaussians.py scan.ply --faces 8000 --height 0.4
python examples/05_export_your_gaussians.py                      # with a ball of Gaussians, which it writes first
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch.nn.functional import normalize

from steindreamer.pipelines.export import ExportConfig, export_asset
from steindreamer.representations import Gaussians, GaussiansConfig, write_gaussian_ply


def ball(count: int = 2000) -> Gaussians:
    """Nearly opaque Gaussians on a sphere, colored by their position."""
    points = 0.6 * normalize(torch.randn(count, 3, generator=torch.Generator().manual_seed(0)), dim=1)
    return Gaussians.from_points(points, 0.5 + 0.6 * points, GaussiansConfig(opacity=0.9))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ply", type=Path, nargs="?", help="splat file; without one, a ball is written and used")
    parser.add_argument("--out", type=Path, default=Path("runs/exported"), help="folder of the asset")
    parser.add_argument("--faces", type=int, default=5000, help="maximum number of triangles")
    parser.add_argument("--texture", type=int, default=1024, help="size of the textures in pixels, a power of two")
    parser.add_argument("--height", type=float, help="height in meters; by default that of the file")
    parser.add_argument("--detail", type=int, default=144, help="voxels along the longest side")
    parser.add_argument("--views", type=int, default=64, help="views from which surface and colors are taken")
    options = parser.parse_args()
    ply = options.ply
    if ply is None:
        ply = options.out / "ball.ply"
        write_gaussian_ply(ball(), ply)
    # Fitted into the unit ball for the extraction; the file's own position and size return in the asset.
    scene = GaussiansConfig(initial_ply=str(ply)).build(torch.Generator())
    config = ExportConfig(
        face_budget=options.faces,
        texture_size=options.texture,
        height_meters=options.height,
        resolution=options.detail,
        cameras=options.views,
    )
    report = export_asset(scene, options.out, config, name=ply.stem)
    print(report.path)
    print(f"{report.faces} faces, {'watertight' if report.watertight else 'not watertight'}")
    print(
        f"color difference {report.color_difference:.1f} (CIEDE2000), silhouettes overlap {report.silhouette_iou:.0%}"
    )


if __name__ == "__main__":
    main()
