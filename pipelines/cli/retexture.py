"""The command line of `python pipelines/retexture.py` and `steindreamer retexture`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from ..command import Parser
from ..config.retexturing import ONLY_TEXTURE, RETEXTURED_MESH
from ..streams import repair_streams
from .run import add_options, started

EPILOGUE = """\
settings (key=value):
  yaw=90                    rotation about +Y that brings the front of the mesh to +Z
  start=texture             begin with the texture of the file instead of gray
  texture_size=2048         size of the texture of materials that have none
  stages.texture.steps=300  and every other setting of a run; --settings shows them

examples:
  retexture.py mug.glb --prompt "a red mug"
  retexture.py chair.glb --prompt "a green chair" --part Seat
  retexture.py car.glb --prompt "a blue car" --mask hood.png --out runs/hood
  retexture.py --resume --out runs/hood          after Ctrl-C, a crash or a power cut

The run's folder holds asset/asset.glb: the file with other base color
textures. Triangles, texture coordinates, names and everything else are kept.
Of an OBJ file, asset/obj/ holds the file itself with other images.
"""
_SHORT = {"yaw": "initial_yaw", "start": "start", "texture_size": "texture_size"}
"""Settings of the representation by the names that they have here."""


def parser(prog: str = "retexture.py") -> argparse.ArgumentParser:
    """The argument parser of the command line."""
    out = Parser(
        prog=prog,
        description="Give a mesh file another texture by score distillation; only its base color image is replaced.",
        epilog=EPILOGUE.replace("retexture.py", prog),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    out.add_argument("file", nargs="?", metavar="FILE", help="a .glb, .gltf or .obj file with texture coordinates")
    out.add_argument("--prompt", help="what the object is to look like")
    out.add_argument("--part", metavar="NAME", help="paint only the faces of this node, mesh or material")
    out.add_argument("--mask", type=Path, metavar="IMAGE", help="paint only where this image of the texture is white")
    add_options(out)
    out.add_argument("overrides", nargs="*", metavar="key=value", help="individual settings, see below")
    return out


def main(arguments: Sequence[str] | None = None, prog: str = "retexture.py") -> int:
    """Run the command line. Returns the exit status: 0 done, 1 error, 2 usage error, 128 + a signal's number."""
    repair_streams()
    out = parser(prog)
    options = out.parse_intermixed_args(arguments)
    if options.file is not None and options.resume and "=" in options.file:
        options.overrides.insert(0, options.file)
        options.file = None
    if not options.resume and options.file is None:
        out.error(f'give a mesh file: {prog} FILE --prompt "a red mug"')
    if not options.resume and options.prompt is None:
        out.error(f'give a prompt: {prog} {options.file} --prompt "a red mug"')
    options.overrides = [_long(text) for text in options.overrides]
    given = {"initial_mesh": options.file, "part": options.part, "mask": options.mask and str(options.mask)}
    scene = {key: value for key, value in given.items() if value is not None}
    if not options.resume:
        options.representation, options.base = RETEXTURED_MESH, (ONLY_TEXTURE,)
    if scene:
        options.named = {"representation": scene}
    return started(options)


def _long(text: str) -> str:
    """A setting with its full name."""
    key, separator, value = text.partition("=")
    return f"representation.{_SHORT[key]}{separator}{value}" if key in _SHORT else text
