"""The material files of Wavefront OBJ: diffuse colors and their textures."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from ..painted_mesh import CLAMP, REPEAT, Paint, Texture
from .neighbors import PictureReader, read_neighbor
from .parts import GREY, Tell

ARGUMENTS = {"-blendu": 1, "-blendv": 1, "-boost": 1, "-bm": 1, "-cc": 1, "-clamp": 1, "-imfchan": 1, "-mm": 2}
ARGUMENTS |= {"-texres": 1, "-type": 1}
"""Words that follow an option of a texture; -o, -s and -t take one to three numbers."""


@dataclass
class MtlMaterial:
    """What a material file says about a surface's own color; display sRGB."""

    diffuse: tuple[float, float, float] | None = None
    picture: str = ""
    """As it is named."""
    clamped: bool = False
    scale: tuple[float, float] = (1.0, 1.0)
    offset: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class ObjPaint:
    """A material ready for use."""

    paint: Paint
    scale: tuple[float, float] = (1.0, 1.0)
    """Of the texture coordinates, before v is turned downwards,"""
    offset: tuple[float, float] = (0.0, 0.0)
    """and what is added then."""
    colored: bool = True
    """False: there is no color, and the paint only stands in."""


class ObjMaterials:
    """The materials of an OBJ file by name. What cannot be read is told, once, and left out."""

    def __init__(self, libraries: Iterable[str], folder: Path, tell: Tell) -> None:
        """`libraries`: what follows each `mtllib`."""
        self._folder, self._tell = folder, tell
        self._pictures = PictureReader()
        self._textures: dict[tuple[str, bool], Texture | None] = {}
        self._materials: dict[str, MtlMaterial] = {}
        self._paints: dict[str, ObjPaint] = {}
        for library in dict.fromkeys(libraries):
            self._materials |= self._library(library)

    def paint(self, name: str) -> ObjPaint:
        """Grey for a material that no file defines, or without a name."""
        if name not in self._paints:
            self._paints[name] = self._paint(name)
        return self._paints[name]

    def _paint(self, name: str) -> ObjPaint:
        material = self._materials.get(name)
        if material is None:
            if name:
                self._tell(f"no material file defines '{name}'; it is grey")
            return ObjPaint(GREY, colored=False)
        texture = self._texture(material.picture, material.clamped) if material.picture else None
        if texture is None:
            if material.diffuse is None:
                return ObjPaint(GREY, colored=False)
            return ObjPaint(Paint(material.diffuse))
        # Many programs write black beside a texture, and mean the texture.
        factor = material.diffuse if material.diffuse and any(material.diffuse) else (1.0, 1.0, 1.0)
        return ObjPaint(Paint(factor, texture), material.scale, material.offset)

    def _library(self, line: str) -> dict[str, MtlMaterial]:
        """A line names one file, with spaces in it, or several."""
        name = line.strip('"')
        try:
            return parse_mtl(_read(self._folder, name))
        except (OSError, ValueError) as error:
            if len(names := line.split()) > 1:
                return {key: value for name in names for key, value in self._library(name).items()}
            self._tell(f"its material file '{name[:80]}' cannot be read ({_reason(error)}); what it colors is grey")
            return {}

    def _texture(self, name: str, clamped: bool) -> Texture | None:
        if (name, clamped) not in self._textures:
            wrap = CLAMP if clamped else REPEAT
            try:
                texels = self._pictures.decode(_read(self._folder, name))
                self._textures[name, clamped] = Texture(texels, (wrap, wrap))
            except (OSError, ValueError) as error:
                self._tell(
                    f"its texture '{name[:80]}' cannot be read ({_reason(error)}); its material's plain color is taken"
                )
                self._textures[name, clamped] = None
        return self._textures[name, clamped]


def parse_mtl(data: bytes) -> dict[str, MtlMaterial]:
    """Materials by name. Lines that cannot be understood, or stand before the first material, are passed over."""
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
                _take_texture(material, words)
            case _:
                pass
    return materials


def _color(words: list[str]) -> tuple[float, float, float] | None:
    numbers = _numbers(words, 3)
    if not numbers:  # of a spectrum, or CIE XYZ
        return None
    red, green, blue = numbers if len(numbers) == 3 else [numbers[0]] * 3
    return red, green, blue


def _take_texture(material: MtlMaterial, words: list[str]) -> None:
    """Options, each with its arguments, then the file's name."""
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
    material.picture = " ".join(words[at:]).strip('"')


def _numbers(words: list[str], most: int) -> list[float]:
    """Those that the words begin with, finite ones."""
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


def _read(folder: Path, name: str) -> bytes:
    """A file beside the mesh. Names with the other system's separators, or a place on another computer, are common:
    then a file of that name in the folder itself is meant.
    """
    parts = PureWindowsPath(name).parts
    if not name or not parts:
        raise ValueError("it has no name")
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
