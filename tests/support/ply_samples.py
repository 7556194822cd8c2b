"""An independent PLY writer for all encodings, for tests of the reader."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from hypothesis import strategies as st

CODES = {
    **{"char": "b", "int8": "b", "uchar": "B", "uint8": "B", "short": "h", "int16": "h", "ushort": "H", "uint16": "H"},
    **{"int": "i", "int32": "i", "uint": "I", "uint32": "I", "float": "f", "float32": "f"},
    **{"double": "d", "float64": "d"},
}
ENCODINGS = ("ascii", "binary_little_endian", "binary_big_endian")
NEWLINES = ("\n", "\r\n", "\r")
SPLAT_NAMES = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity", "scale_0", "scale_1", "scale_2"),
    *("rot_0", "rot_1", "rot_2", "rot_3"),
)


@dataclass
class Element:
    name: str
    properties: Sequence[str]
    """Properties as in the header: "float x", "list uchar int indices"."""
    rows: Sequence[Sequence[float | Sequence[float]]]
    """Rows with a number or a list per property."""


@dataclass
class Ply:
    elements: Sequence[Element]
    encoding: str = "binary_little_endian"
    newline: str = "\n"
    comments: Sequence[str] = field(default_factory=tuple)
    """Comment lines, such as "comment made by hand"."""

    def content(self) -> bytes:
        header = ["ply", f"format {self.encoding} 1.0", *self.comments]
        for element in self.elements:
            header.append(f"element {element.name} {len(element.rows)}")
            header += [f"property {each}" for each in element.properties]
        text = self.newline.join([*header, "end_header", ""]).encode()
        for element in self.elements:
            for row in element.rows:
                text += self._row(element, row)
        return text

    def _row(self, element: Element, row: Sequence[float | Sequence[float]]) -> bytes:
        flat: list[tuple[str, float]] = []
        for each, value in zip(element.properties, row, strict=True):
            words = each.split()
            if words[0] == "list":
                assert not isinstance(value, float | int)
                flat += [(words[1], len(value)), *((words[2], item) for item in value)]
            else:
                assert isinstance(value, float | int)
                flat.append((words[0], value))
        if self.encoding == "ascii":
            return (" ".join(_text(kind, value) for kind, value in flat) + self.newline).encode()
        order = "<" if "little" in self.encoding else ">"
        return b"".join(struct.pack(order + CODES[kind], _typed(kind, value)) for kind, value in flat)


def _typed(kind: str, value: float) -> float:
    return value if CODES[kind] in "fd" else int(value)


def _text(kind: str, value: float) -> str:
    return repr(float(value)) if CODES[kind] in "fd" else str(int(value))


def splats(means: torch.Tensor, **columns: Sequence[float]) -> Element:
    """Opaque orange isotropic Gaussians of 0.05 at the points; `columns` replaces properties."""
    count = len(means)
    table = {name: means[:, axis].tolist() for axis, name in enumerate("xyz")}
    table |= {f"f_dc_{axis}": [value] * count for axis, value in enumerate((1.06, 0.0, -1.06))}
    table |= {"opacity": [2.0] * count} | {f"scale_{axis}": [float(np.log(0.05))] * count for axis in range(3)}
    table |= {f"rot_{axis}": [float(axis == 0)] * count for axis in range(4)} | dict(columns)
    names = list(table)
    return Element("vertex", [f"float {name}" for name in names], list(zip(*table.values(), strict=True)))


def ball(count: int = 200, radius: float = 0.4) -> torch.Tensor:
    """Random points on a sphere."""
    points = torch.randn(count, 3, generator=torch.Generator().manual_seed(0))
    return radius * torch.nn.functional.normalize(points, dim=1)


other_elements = st.lists(
    st.builds(
        lambda name, kinds, count: Element(
            name,
            [f"{kind} p{index}" for index, kind in enumerate(kinds)],
            [[[7.0] * (row % 4) if kind.startswith("list") else 7.0 for kind in kinds] for row in range(count)],
        ),
        st.sampled_from(["face", "camera", "vertices", "Vertex"]),
        st.lists(st.sampled_from([*CODES, "list uchar int", "list int double", "list float32 int16"]), max_size=3),
        st.integers(0, 5),
    ),
    max_size=2,
)
"""Elements that a reader of vertices has to skip."""
