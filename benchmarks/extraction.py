"""How well the export recovers objects whose true mesh is known, from the meshes themselves and from fitted Gaussians.

    python benchmarks/extraction.py [--kinds mug chair ...] [--steps 300] [--out benchmarks/results/extraction.md]

For each kind: an object of the procedural world; Gaussians fitted to its renders by plain least squares (a stand-in for
distillation); then every way to find the surface and the colors. `chamfer` is the mean distance in millimeters between
the visible surfaces (the object's radius is 900 mm), accuracy and completeness averaged; `dE` is the mean CIEDE2000
between the representation and the textured mesh on views that the bake does not use; `IoU` compares silhouettes.
"""

from __future__ import annotations

import argparse
import platform
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import steindreamer.passive_waiting  # noqa: F401 isort:skip

import numpy as np
import torch

from steindreamer.pipelines.export.fidelity import compare, fidelity_cameras
from steindreamer.pipelines.meshing.bake import bake_color, gather
from steindreamer.pipelines.meshing.simplify import clean_mesh
from steindreamer.pipelines.meshing.surface import SurfaceConfig, extract_surface
from steindreamer.pipelines.meshing.texels import rasterize_uvs
from steindreamer.pipelines.meshing.unwrap import unwrap
from steindreamer.pipelines.meshing.views import photograph, take_views
from steindreamer.representations import (
    Cameras,
    Gaussians,
    GaussiansConfig,
    RenderOutput,
    Representation,
    TriangleMesh,
    render_mesh,
    sphere_of_cameras,
)
from steindreamer.world import parse_caption, sample_object
from steindreamer.world.truth import chamfer_millimeters

KINDS = ("mug", "chair", "car", "duck", "tulip", "castle")


class MeshScene(Representation):
    """A finished mesh as a representation that only renders."""

    def __init__(self, mesh: TriangleMesh) -> None:
        super().__init__()
        self.mesh = mesh

    def learning_rates(self, progress: float) -> dict[str, float]:
        return {}

    def render(self, cameras: Cameras, background: torch.Tensor) -> RenderOutput:
        return render_mesh(self.mesh, cameras, background, supersample=2)


def fit_gaussians(mesh: TriangleMesh, steps: int, seed: int = 0) -> Gaussians:
    """Least squares on renders at 128 pixels, four views a step out of 64."""
    generator = torch.Generator().manual_seed(seed)
    cameras = sphere_of_cameras(64, height=128)
    target = photograph(MeshScene(mesh), cameras)
    scene = GaussiansConfig(count=6000, radius=0.7).build(generator)
    optimizer = torch.optim.Adam(scene.optimizer_groups(), eps=1e-15)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = scene.learning_rates(step / steps)[group["name"]]
        chosen = torch.randint(len(cameras), (4,), generator=generator)
        background = torch.rand(4, 3, generator=generator)
        empty = (1 - target.opacity[chosen]) * background[:, :, None, None]
        out = scene.render(cameras[chosen], background)
        loss = (out.rgb - target.rgb[chosen] * target.opacity[chosen] - empty).square().mean()
        loss = loss + 0.01 * scene.regularizers()["opacity"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return scene


def measure(kind: str, name: str, scene: Representation, truth: TriangleMesh, sources: tuple[str, ...]) -> list[str]:
    views = take_views(scene, 64, 256)
    unseen = photograph(scene, fidelity_cameras())
    rows = []
    for source in sources:
        start = time.perf_counter()
        mesh = clean_mesh(extract_surface(scene, SurfaceConfig(source=source), views), 20_000)
        seconds = time.perf_counter() - start
        distance = chamfer_millimeters(mesh, truth)
        mesh = unwrap(mesh)
        texels = rasterize_uvs(mesh, 1024)
        gathered = gather(mesh, texels, views)
        for color in sources:
            field = scene if isinstance(scene, Gaussians) else None
            page = torch.from_numpy(bake_color(mesh, texels, gathered, color, field)).permute(2, 0, 1) / 255
            result = compare(unseen, replace(mesh, texture=page))
            rows.append(
                f"| {kind} | {name} | {source} | {color} | {distance:.1f} | {result.color_difference:.2f} "
                f"| {result.silhouette_iou:.3f} | {len(mesh.faces)} | {seconds:.1f} |"
            )
            print(rows[-1], flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=KINDS)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [
        f"{date.today()}, {platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "",
        "| kind | representation | surface | color | chamfer mm | dE | IoU | faces | s (surface) |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in arguments.kinds:
        truth = sample_object(parse_caption(kind), np.random.default_rng(0))
        rows += measure(kind, "true mesh", MeshScene(truth), truth, ("renders",))
        scene = fit_gaussians(truth, arguments.steps)
        rows += measure(kind, "Gaussians", scene, truth, ("renders", "field"))
    if arguments.out:
        arguments.out.write_text("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
