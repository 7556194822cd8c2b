"""A reader for the material files (.mtl) of Wavefront OBJ: diffuse colors and textures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..painted import CLAMP, REPEAT, Paint, Texture
from .neighbors import ImageReader, read_neighbor
from .parts import GRAY, Warn

ARGUMENTS = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2}
ARGUMENTS |= {"-texres": 1, "-type": 1}
"""Number of arguments of each texture option; -o, -s and -t have one to three."""


@dataclass
class MtlMaterial:
    """The diffuse color of a material, as given in the file."""

    diffuse: tuple[float, float, float] | None = None
    """Color, display sRGB; None: not given."""
    image: str = ""
    """File name of the texture; empty: none."""
    clamped: bool = False
    """Whether texture coordinates are clamped instead of repeated."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Scale of the texture coordinates."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Offset of the texture coordinates, after scaling."""


@dataclass(frozen=True)
class ObjPaint:
    """A material with its texture loaded."""

    paint: Paint
    """Color and texture."""
    scale: tuple[float, float] = (1.0, 1.0)
    """Scale of the texture coordinates, before v is flipped."""
    offset: tuple[float, float] = (0.0, 0.0)
    """Offset of the scaled texture coordinates, before v is flipped."""
    colored: bool = True
    """Whether the file defines a color; otherwise `paint` is a default."""


class ObjMaterials:
    """The materials of an OBJ file by name; an unreadable file causes one warning and is omitted.

    Args:
        libraries: The arguments of all `mtllib` lines.
        folder: Folder of the OBJ file.
        warn: Logs warnings.
    """

    def __init__(self, libraries: Iterable[str], folder: Path, warn: Warn) -> None:
        self._folder, self._warn = folder, warn
        self._images = ImageReader()
        self._textures: dict[tuple[str, bool], Texture | None] = {}
        self._materials: dict[str, MtlMaterial] = {}
        self._paints: dict[str, ObjPaint] = {}
        for library in dict.fromkeys(libraries):
            self._materials |= self._library(library)

    def paint(self, name: str) -> ObjPaint:
        """A material by name; gray for an undefined or empty name."""
        if name not in self._paints:
            self._paints[name] = self._paint(name)
        return self._paints[name]

    def _paint(self, name: str) -> ObjPaint:
        material = self._materials.get(name)
        if material is None:
            if name:
                self._warn(f"no material file defines '{name}'; it is gray")
            return ObjPaint(GRAY, colored=False)
        texture = self._texture(material.image, material.clamped) if material.image else None
        if texture is None:
            if material.diffuse is None:
                return ObjPaint(GRAY, colored=False)
            return ObjPaint(Paint(material.diffuse))
        # Many programs write black as the color of a textured material; the texture is meant.
        factor = material.diffuse if material.diffuse and any(material.diffuse) else (1.0, 1.0, 1.0)
        return ObjPaint(Paint(factor, texture), material.scale, material.offset)

    def _library(self, line: str) -> dict[str, MtlMaterial]:
        """Read the files of an `mtllib` line, which names one file that may contain spaces, or several files."""
        name = line.strip('"')
        try:
            return parse_mtl(read_named(self._folder, name))
        except (OSError, ValueError) as error:
            if len(names := line.split()) > 1:
                return {key: value for name in names for key, value in self._library(name).items()}
            self._warn(f"its material file '{name[:80]}' cannot be read ({_reason(error)}); its materials are gray")
            return {}

    def _texture(self, name: str, clamped: bool) -> Texture | None:
        if (name, clamped) not in self._textures:
            wrap = CLAMP if clamped else REPEAT
            try:
                texels = self._images.decode(read_named(self._folder, name))
                self._textures[name, clamped] = Texture(texels, (wrap, wrap))
            except (OSError, ValueError) as error:
                self._warn(
                    f"its texture '{name[:80]}' cannot be read ({_reason(error)}); its material's plain color is used"
                )
                self._textures[name, clamped] = None
        return self._textures[name, clamped]


def parse_mtl(data: bytes) -> dict[str, MtlMaterial]:
    """Parse a material file to materials by name; unknown lines and lines before the first material are ignored."""
    materials: dict[str, MtlMaterial] = {}
    material = MtlMaterial()
    for line in data.decode("utf-8-sig", "replace").splitlines():
        key, *words = line.split("#")[0].split() or [""]
        match key.lower():
            case "newmtl":
                material = materials[" ".join(words)] = MtlMaterial()
            case "kd":
                material.diffuse = _color(words) or material.diffuse
            case "map_kd":
                take_texture(material, words)
            case _:
                pass
    return materials


def _color(words: list[str]) -> tuple[float, float, float] | None:
    numbers = _numbers(words, 3)
    if not numbers:  # a spectrum, or CIE XYZ
        return None
    red, green, blue = numbers if len(numbers) == 3 else [numbers[0]] * 3
    return red, green, blue


def take_texture(material: MtlMaterial, words: list[str]) -> None:
    """Parse a texture line: options with their arguments, then the file name."""
    at = 0
    while at < len(words) and words[at].startswith("-"):
        option, at = words[at].lower(), at + 1
        if option in ("-o", "-s", "-t"):
            numbers = _numbers(words[at:-1], 3)
            at += len(numbers)
            default = 1.0 if option == "-s" else 0.0
            u, v = (*numbers, default, default)[:2]
            if option == "-s":
                material.scale = u, v
            elif option == "-o":
                material.offset = u, v
        elif option in ARGUMENTS:
            if option == "-clamp":
                material.clamped = words[at : at + 1] == ["on"]
            at += ARGUMENTS[option]
        else:  # a name that begins with a minus
            at -= 1
            break
    material.image = " ".join(words[at:]).strip('"')


def _numbers(words: list[str], most: int) -> list[float]:
    """The leading finite numbers of the words, at most `most`."""
    out: list[float] = []
    for word in words[:most]:
        try:
            number = float(word)
        except ValueError:
            break
        if not math.isfinite(number):
            break
        out.append(number)
    return out


def read_named(folder: Path, name: str) -> bytes:
    """Read a file beside the mesh.

    Names with Windows separators and paths on another computer are common; then the file of that name in `folder` is
    read.
    """
    parts = PureWindowsPath(name).parts
    if not name or not parts:
        raise ValueError("its name is empty")
    try:
        return read_neighbor(folder, "/".join(parts) if "\\" in name else name)
    except (OSError, ValueError):
        if len(parts) == 1:
            raise
        try:
            return read_neighbor(folder, parts[-1])
        except OSError:
            pass
        raise


def _reason(error: Exception) -> str:
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
