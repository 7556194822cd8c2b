"""Overview of a batch: contact_sheet.png, index.html and the folder `assets` with all GLB files."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..errors import UserError
from ..files import read_regular, write_atomically
from ..pages.document import html_document
from ..pages.images import data_uri
from ..runs.folder import asset_folder, slug
from .records import assets_of, summary_of

SHEET, PAGE, ASSETS = "contact_sheet.png", "index.html", "assets"
WRITTEN = ".assets.json"
"""File with the names of the files in `assets` that the batch has written."""
MAX_TILES = 400
"""Largest number of thumbnails on the sheet; the page has all."""
TILE, CAPTION = 160, 30
"""Size of a thumbnail on the sheet, and height of its caption, in pixels."""
PAGE_TILE = 128
"""Width of a thumbnail on the page in pixels."""
STYLE = "td{vertical-align:middle;overflow-wrap:anywhere}td img{display:block}"
_LARGEST = 64 << 20
_DAMAGED = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""Exceptions of Pillow for a file that it cannot read."""


def write_gallery(out: Path, records: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]) -> None:
    """Write the overview of the finished rows. Raises UserError if that fails.

    Args:
        out: Folder of the batch.
        records: Lines of batch.jsonl.
        failures: Lines of failed.jsonl.
    """
    try:
        _collect_assets(out, records)
        write_atomically(out / SHEET, _sheet(out, records[:MAX_TILES]))
        write_atomically(out / PAGE, _page(out, records, failures).encode("utf-8", "replace"))
    except OSError as error:
        raise UserError(
            f"cannot write {error.filename or out}: {error.strerror or error}; fix that and add --collect"
        ) from error


def asset_names(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names for the assets of rows: words of the prompt, or the name of the run if two prompts have the same words."""
    words = [slug(record["prompt"]) for record in records]
    counts = Counter(words)
    return [
        word if counts[word] == 1 else Path(record["folder"]).name for word, record in zip(words, records, strict=True)
    ]


def _collect_assets(out: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Link every asset into one folder, or copy it where the file system has no hard links.

    Files of an earlier call whose names no row has any more are removed, unless they were changed since.
    """
    folder, written = out / ASSETS, dict[str, list[int]]()
    folder.mkdir(exist_ok=True)
    for record, name in zip(records, asset_names(records), strict=True):
        run = out / record["folder"]
        for index, source in enumerate(assets_of(run, summary_of(run) or {"exports": []})):
            target = folder / (f"{name}-particle-{index + 1}.glb" if index else f"{name}.glb")
            _place(source, target)
            written[target.name] = _state(target)
    for name, state in _written_before(out).items():
        stale = folder / name
        if name not in written and stale.parent == folder and stale.is_file() and _state(stale) == state:
            stale.unlink()
    write_atomically(out / WRITTEN, json.dumps(written, indent=1).encode())


def _written_before(out: Path) -> dict[str, list[int]]:
    """State of the files that the last call has written to `assets`, by name; empty if unknown."""
    try:
        return dict(json.loads(read_regular(out / WRITTEN, _LARGEST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def _state(path: Path) -> list[int]:
    """Size and time of the last change, by which a file is known again."""
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _place(source: Path, target: Path) -> None:
    if target.is_file() and target.samefile(source):
        return
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)


def _sheet(out: Path, records: Sequence[Mapping[str, Any]]) -> bytes:
    """The thumbnails with the prompts below them, as PNG."""
    columns = max(1, math.ceil(math.sqrt(len(records))))
    rows = max(1, math.ceil(len(records) / columns))
    sheet = Image.new("RGB", (columns * TILE, rows * (TILE + CAPTION)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    for index, record in enumerate(records):
        x, y = index % columns * TILE, index // columns * (TILE + CAPTION)
        if (tile := _tile(out, record, TILE)) is not None:
            sheet.paste(tile, (x, y))
        for line, text in enumerate(_wrapped(record["prompt"], draw, font)):
            draw.text((x + 4, y + TILE + 13 * line), text, fill="black", font=font)
    buffer = BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _wrapped(text: str, draw: ImageDraw.ImageDraw, font: Any) -> list[str]:
    """The text in at most two lines of a tile's width; the end is cut off."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if draw.textlength(longer, font) <= TILE - 8:
            lines[-1] = longer
        else:
            lines.append(word)
    lines = [line for line in lines if line]
    if len(lines) > 2:
        lines = [lines[0], f"{lines[1]} ..."]
    return [_cut(line, draw, font) for line in lines]


def _cut(line: str, draw: ImageDraw.ImageDraw, font: Any) -> str:
    while draw.textlength(line, font) > TILE - 8:
        line = f"{line.removesuffix('...')[:-1]}..."
    return line


def _page(out: Path, records: Sequence[Mapping[str, Any]], failures: Sequence[Mapping[str, Any]]) -> str:
    ready = sum(record["audit"]["passed"] for record in records)
    body = f"""<h1>{escape(out.resolve().name)}</h1>
<p class="soft">{len(records)} assets, {ready} without errors in the audit, {len(failures)} failed</p>
<div class="scroll"><table><tr><th></th><th>prompt</th><th>seed</th><th>triangles</th><th>audit</th><th>seconds</th>
<th>prior calls</th><th>file</th></tr>
{"".join(_row(out, record, name) for record, name in zip(records, asset_names(records), strict=True))}</table></div>
"""
    if failures:
        rows = "".join(
            f"<tr><td>{each['line']}</td><td>{escape(each['prompt'])}</td><td>{escape(each['message'])}</td></tr>"
            for each in failures
        )
        body += f"<h2>Failed</h2><table><tr><th>line</th><th>prompt</th><th>reason</th></tr>{rows}</table>"
    return html_document(out.resolve().name, body, style=STYLE)


def _row(out: Path, record: Mapping[str, Any], name: str) -> str:
    folder, verdict = escape(record["folder"]), record["audit"]
    image = "no image"
    if (tile := _tile(out, record, PAGE_TILE)) is not None:
        buffer = BytesIO()
        tile.save(buffer, "WEBP", quality=85)
        image = f'<img src="{data_uri(buffer.getvalue(), "webp")}" alt="{escape(record["prompt"])}">'
    said = "no errors" if verdict["passed"] else f"{verdict['errors']} errors"
    file = f'<a href="{ASSETS}/{escape(name)}.glb">{escape(name)}.glb</a>' if record["asset"] else ""
    cells = (
        f'<a href="{folder}/report.html">{image}</a>',
        f'<a href="{folder}/report.html">{escape(record["prompt"])}</a>',
        str(record["seed"]),
        f"{record['triangles']:,}",
        f"{said}, {verdict['warnings']} warnings",
        f"{record['seconds']:.0f}",
        "" if record["prior_calls"] is None else f"{record['prior_calls']:,}",
        file,
    )
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>\n"


def _tile(out: Path, record: Mapping[str, Any], size: int) -> Image.Image | None:
    """The thumbnail of an asset on white; None without an asset, or if the image cannot be read."""
    tile = Image.new("RGB", (size, size), "white")
    try:
        with Image.open(asset_folder(out / record["folder"], 0) / "thumbnail.png") as image:
            lit = image.convert("RGBA").resize((size, size))
    except _DAMAGED:
        return None
    tile.paste(lit, (0, 0), lit)
    return tile
