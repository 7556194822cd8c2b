"""An OBJ file with its material files and images, and the replacement of base color images in it."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath

from ...files.regular import read_regular_file
from .mtl import MtlMaterial, parse_mtl, read_named, take_texture
from .obj import numbered_lines

_NEW_MATERIAL = "base_color"
"""Name of the material that faces without one get."""


@dataclass(frozen=True)
class ObjBundle:
    """An OBJ file and the files that it refers to."""

    name: str
    """File name of the OBJ file."""
    files: dict[str, bytes]
    """Content of the files by relative path, the OBJ file among them; files that could not be read are left out."""

    @classmethod
    def read(cls, path: Path) -> ObjBundle:
        """Read an OBJ file, its material files and their images. Raises OSError or ValueError for the first only."""
        files = {path.name: read_regular_file(path)}
        bundle = cls(path.name, files)
        for library in bundle.libraries:
            bundle._add(path.parent, library)
        for image in dict.fromkeys(image for _, image, _ in bundle._images()):
            bundle._add(path.parent, image)
        return bundle

    @classmethod
    def unpack(cls, data: bytes) -> ObjBundle:
        """The files that `packed` joined."""
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name, *others = archive.namelist()
            return cls(name, {each: archive.read(each) for each in (name, *others)})

    def packed(self) -> bytes:
        """All files as one uncompressed ZIP file, the OBJ file first; the same files give the same bytes."""
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name in (self.name, *(each for each in self.files if each != self.name)):
                archive.writestr(zipfile.ZipInfo(name), self.files[name])
        return out.getvalue()

    @property
    def libraries(self) -> list[str]:
        """The material files by the names that the OBJ file gives."""
        named = [line.partition(" ")[2].strip() for _, line in self._lines() if line.startswith("mtllib ")]
        return list(dict.fromkeys(each.strip('"') for each in named if each))

    @property
    def materials(self) -> list[str]:
        """Names of the materials in the order of the faces; empty: faces before the first material."""
        current, found = "", {}
        for _, line in self._lines():
            key, _, rest = line.partition(" ")
            if key == "usemtl":
                current = " ".join(rest.split())
            elif key == "f":
                found[current] = None
        return list(found)

    def image_of(self, material: str) -> str:
        """The name of a material's base color image; empty if it has none."""
        return self._defined().get(material, MtlMaterial()).image

    def image_file(self, image: str) -> bytes | None:
        """The content of an image by its name in a material file; None if it could not be read."""
        return self.files.get(relative_path(image))

    def with_image(self, materials: Sequence[str], image: bytes, stem: str) -> ObjBundle:
        """The files with another base color image; vertices, texture coordinates, faces and names are the same bytes.

        A PNG that nothing else uses is replaced. Otherwise, the material file names a new one.

        Args:
            materials: Names of the materials; empty: faces without one.
            image: The new image, a PNG.
            stem: Name of the new image without suffix, if one is needed.
        """
        files = dict(self.files)
        old = {self.image_of(name) for name in materials}
        users = [(material, image) for material, image, base in self._images() if not base or material not in materials]
        (only,) = old if len(old) == 1 else ("",)
        path = relative_path(only)
        if path.lower().endswith(".png") and path not in {relative_path(each) for _, each in users}:
            return ObjBundle(self.name, files | {path: image})
        target = _unused(stem, files)
        files[target] = image
        names = [name or _NEW_MATERIAL for name in materials]
        known = self._defined()
        libraries = [relative_path(each) for each in self.libraries]
        for library in libraries:
            if library in files:
                files[library] = _with_map(files[library], names, target)
        missing = [name for name in names if name not in known]
        head = b""
        if "" in materials:
            head = f"usemtl {_NEW_MATERIAL}\n".encode()
        if missing:
            library = next(iter(libraries), "")
            if not library:
                library = _unused(PurePosixPath(self.name).stem, files, ".mtl")
                head = f"mtllib {library}\n".encode() + head
            blocks = "".join(f"newmtl {name}\nKd 1 1 1\nmap_Kd {target}\n" for name in missing)
            before = files.get(library, b"")
            files[library] = before + (b"" if before.endswith(b"\n") or not before else b"\n") + blocks.encode()
        if head:
            files[self.name] = _with_head(files[self.name], head)
        out = ObjBundle(self.name, files)
        shown = {relative_path(each) for _, each, _ in out._images()}
        for name in {relative_path(each) for each in old} - shown:
            files.pop(name, None)
        return out

    def write(self, folder: Path) -> Path:
        """Write all files below a folder. Returns the path of the OBJ file."""
        for name, content in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / self.name

    def _lines(self) -> Iterator[tuple[int, str]]:
        return numbered_lines(self.files[self.name])

    def _defined(self) -> dict[str, MtlMaterial]:
        out: dict[str, MtlMaterial] = {}
        for library in self.libraries:
            out |= parse_mtl(self.files.get(relative_path(library), b""))
        return out

    def _images(self) -> Iterator[tuple[str, str, bool]]:
        """Material, name and whether it is the base color, of every image of the material files."""
        for library in self.libraries:
            current = ""
            for line in self.files.get(relative_path(library), b"").decode("utf-8-sig", "replace").splitlines():
                key, *words = line.split("#")[0].split() or [""]
                if key.lower() == "newmtl":
                    current = " ".join(words)
                elif key.lower().startswith(("map_", "bump", "disp", "decal", "refl", "norm")):
                    found = MtlMaterial()
                    take_texture(found, words)
                    yield current, found.image, key.lower() == "map_kd"

    def _add(self, folder: Path, name: str) -> None:
        try:
            self.files[relative_path(name)] = read_named(folder, name)
        except (OSError, ValueError):
            pass  # the reader of meshes warns about it


def relative_path(name: str) -> str:
    """The place of a file beside the OBJ file: as named if that is below its folder, else the last part of the name."""
    path = PurePosixPath(*PureWindowsPath(name).parts)
    inside = not PureWindowsPath(name).anchor and not path.is_absolute() and ".." not in path.parts
    return str(path) if inside else path.name


def _unused(stem: str, files: dict[str, bytes], suffix: str = ".png") -> str:
    """A file name that no file has."""
    taken = {name.lower() for name in files}
    names = (f"{stem}{number or ''}{suffix}" for number in range(len(files) + 1))
    return next(name for name in names if name.lower() not in taken)


def _with_map(data: bytes, materials: Sequence[str], image: str) -> bytes:
    """A material file whose materials show an image; other lines are the same bytes."""
    lines = data.splitlines(keepends=True)
    texts = [line.decode("utf-8-sig" if number == 0 else "utf-8", "replace") for number, line in enumerate(lines)]
    words = [text.split("#")[0].split() or [""] for text in texts]
    starts = [number for number, each in enumerate(words) if each[0].lower() == "newmtl"]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        if " ".join(words[start][1:]) not in materials:
            continue
        newline = b"\r\n" if lines[start].endswith(b"\r\n") else b"\n"
        shown = [number for number in range(start, end) if words[number][0].lower() == "map_kd"]
        for number in shown:
            found = MtlMaterial()
            take_texture(found, words[number][1:])
            options = words[number][1 : len(words[number]) - len(found.image.split())]
            lines[number] = " ".join(["map_Kd", *options, image]).encode() + newline
        if not shown:
            for number in range(start, end):
                if words[number][0].lower() == "kd":  # it is in the image
                    lines[number] = b"Kd 1 1 1" + newline
            ended = lines[start] if lines[start].endswith(b"\n") else lines[start] + newline
            lines[start] = ended + f"map_Kd {image}".encode() + newline
    return b"".join(lines)


def _with_head(data: bytes, head: bytes) -> bytes:
    """A text file with further lines at its beginning."""
    mark = b"\xef\xbb\xbf"
    return mark + head + data[len(mark) :] if data.startswith(mark) else head + data
