"""Mesh files of others through every preset of `finish`: how near results are to their sources, what `audit` reports.

    python benchmarks/foreign_files.py FILE_OR_FOLDER ... [key=value ...] [--origin TEXT] [--presets unity,web]
        [--packages FOLDER] [--out benchmarks/results/foreign_files.jsonl]
    python benchmarks/foreign_files.py --table   # writes foreign_files.md beside the rows

Every file is finished for every preset, and the main file of each package is audited. A row has the triangles, the
color difference (mean CIEDE2000) and the overlap of silhouettes in 16 views of each level of detail, the warnings and
errors of the audit, and the seconds. `key=value` are settings of `finish`, such as `height_meters=1` for a file that is
not in meters. A file that fails is a row with its error.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Iterable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import steindreamer.passive_waiting  # noqa: F401 isort:skip

from steindreamer.pipelines.auditing import audit
from steindreamer.pipelines.cli.finish import read_config
from steindreamer.pipelines.engines import ENGINES
from steindreamer.pipelines.errors import UserError
from steindreamer.pipelines.finishing.finish import finish
from steindreamer.representations.mesh.file import FORMATS

ROWS = Path(__file__).parent / "results" / "foreign_files.jsonl"
COLOR, OVERLAP = 3.0, 0.98
"""Largest color difference (mean CIEDE2000) and smallest overlap of silhouettes of the first level."""


def files_of(paths: Iterable[Path]) -> Iterator[Path]:
    """Files, and those of folders that `finish` reads."""
    for path in paths:
        yield from (
            sorted(each for each in path.rglob("*") if each.suffix.lower() in FORMATS) if path.is_dir() else [path]
        )


def measure(path: Path, preset: str, settings: list[str], origin: str, packages: Path) -> dict[str, Any]:
    """Finish a file for a preset and audit its main file. Returns a row of the results."""
    row: dict[str, Any] = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load": round(os.getloadavg()[0], 1),
        "file": path.name,
        "origin": origin,
        "settings": settings,
        "preset": preset,
    }
    folder = packages / f"{path.stem}-{path.suffix[1:].lower()}-{preset}"
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        report = finish(path, ENGINES[preset], folder, read_config(settings), overwrite=True)
    except UserError as error:
        return row | {"error": str(error)}
    plain = report.to_plain()
    row |= {
        "seconds": round(time.perf_counter() - wall, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "source_triangles": plain["source_triangles"],
        "source_materials": plain["source_materials"],
        "repair": plain["repair"]["method"],
        "deviation": plain["deviation"],
        "levels": [
            {key: level[key] for key in ("triangles", "color_difference", "silhouette_iou")}
            for level in plain["levels"]
        ],
        "files": plain["files"],
    }
    found = [each for each in audit(folder / plain["files"][0], ENGINES[preset]).findings if each.severity != "info"]
    return row | {
        "errors": [each.check for each in found if each.severity == "error"],
        "warnings": [each.check for each in found if each.severity == "warning"],
    }


def is_near(row: dict[str, Any]) -> bool:
    """Whether the first level is as near to the source as it should be."""
    first = row["levels"][0]
    return (first["color_difference"] or 0) <= COLOR and first["silhouette_iou"] >= OVERLAP


def table(rows: list[dict[str, Any]]) -> str:
    """A Markdown table of the rows, a line per file and preset, with the origins of the files."""
    lines = [
        "# Mesh files of others, finished for every preset",
        "",
        f"`benchmarks/foreign_files.py`, {rows[-1]['date']}, {rows[-1]['machine']} (shared, one thread). Color: mean "
        "CIEDE2000 of level 0 from the source; IoU: overlap of the silhouettes, both in 16 views. Audit: the checks of "
        "`steindreamer audit` that give a warning (an error is marked). The first row includes "
        "the compilation of kernels.",
        "",
        "| file | preset | source | repair | triangles of the levels | color | IoU | audit | CPU seconds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        start = f"| {row['file']} | {row['preset']} |"
        if "error" in row:
            lines.append(f"{start} | | | | | {row['error']} | |")
            continue
        first = row["levels"][0]
        color = "" if first["color_difference"] is None else f"{first['color_difference']:.2f}"
        triangles = ", ".join(f"{level['triangles']:,}" for level in row["levels"])
        found = [f"error: {check}" for check in row["errors"]] + row["warnings"]
        lines.append(
            f"{start} {row['source_triangles']:,} | {row['repair']} | {triangles} | {color} | "
            f"{first['silhouette_iou']:.3f} | {', '.join(found)} | {row['cpu_seconds']:.0f} |"
        )
    done = [row for row in rows if "error" not in row]
    near = {row["file"] for row in rows} - {row["file"] for row in rows if "error" in row or not is_near(row)}
    lines += ["", f"{len(done)} of {len(rows)} packages are written; {len(near)} of {len({r['file'] for r in rows})} "]
    lines[-1] += (
        f"files have a color difference of at most {COLOR:g} and an IoU of at least {OVERLAP:g} for every preset."
    )
    lines += ["", "| file | origin | settings |", "|---|---|---|"]
    origins = {row["file"]: f"| {row['file']} | {row['origin']} | {' '.join(row['settings'])} |" for row in rows}
    return "\n".join([*lines, *origins.values(), ""])


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, the newest of each file and preset."""
    rows = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["file"], row["preset"]] = row
    return list(rows.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", nargs="*", help="files, folders, and settings of finish")
    parser.add_argument("--presets", default=",".join(ENGINES))
    parser.add_argument("--origin", default="", help="public project and path of the files")
    parser.add_argument("--packages", type=Path, help="folder of the packages; without it they are not kept")
    parser.add_argument("--out", type=Path, default=ROWS)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    settings = [each for each in options.inputs if "=" in each]
    with tempfile.TemporaryDirectory() as temporary:
        for path in files_of(Path(each) for each in options.inputs if "=" not in each):
            for preset in options.presets.split(","):
                row = measure(path, preset, settings, options.origin, options.packages or Path(temporary))
                print(json.dumps(row), flush=True)
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
    if options.table:
        options.out.with_suffix(".md").write_text(table(read_rows(options.out)), encoding="utf-8")


if __name__ == "__main__":
    main()
