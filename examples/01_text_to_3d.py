"""Text to 3D in memory: the trained scene, the textured mesh, the files and the training log.

python examples/01_text_to_3d.py "a red mug"
python examples/01_text_to_3d.py "a red mug" --quick             # a few steps, to see that all works
python examples/01_text_to_3d.py "a red mug" method.name=sds     # any setting of the command line
"""

from __future__ import annotations

import sys

import steindreamer

QUICK = [
    "refine=false", "stages.coarse.steps=4", "stages.coarse.resolution=32", "representation.count=500",
    "export.resolution=32", "export.cameras=12", "export.view_size=64", "export.texture_size=128",
    "export.face_budget=400", "output.turntable_frames=4", "output.image_size=32",
]  # fmt: skip


def main(prompt: str = "a red mug", *arguments: str) -> None:
    overrides = [*(QUICK if "--quick" in arguments else []), *(each for each in arguments if each != "--quick")]
    result = steindreamer.text_to_3d(
        prompt, representation="gaussians", method="ssd", seed=3, overrides=overrides, out="runs/first", overwrite=True
    )
    count = sum(parameter.numel() for parameter in result.scene.parameters())
    print(f"scene: {type(result.scene).__name__}, a torch module with {count} parameters")
    if result.mesh is not None:
        print(f"mesh: {len(result.mesh.vertices)} vertices, {len(result.mesh.faces)} faces")
    for kind, path in result.files.items():
        print(f"{kind}: {path}")
    last = result.metrics[-1]
    print(f"last step logged: {last['step']}, loss {last['loss']:.3g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
