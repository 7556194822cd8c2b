"""Audit as one HTML page with embedded images, without scripts or external resources."""

from __future__ import annotations

import io
from html import escape
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..files import write_atomically
from ..pages.images import data_uri
from .audit import Audit
from .drawing import layout, rendered
from .finding import Finding

VIEW_SIZE = 320
"""Width and height of a view in pixels."""
LAYOUT_SIZE = 480
"""Width and height of an image of texture coordinates in pixels."""
MOST_LAYOUTS = 8
"""Largest number of materials whose texture coordinates are shown."""
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
h1{margin:0;font-size:1.4rem;overflow-wrap:anywhere}h2{margin:2rem 0 .5rem;font-size:1.15rem}
figure{margin:0 1rem 1rem 0;display:inline-block;vertical-align:top}img{max-width:100%}
figcaption,.soft{font-size:.87rem;color:#666}.table{overflow-x:auto}table{border-collapse:collapse;width:100%}
td,th{padding:.25rem .8rem .25rem 0;text-align:left;vertical-align:top;border-top:1px solid #eee}
.error td:first-child{color:#b3261e;font-weight:600}.warning td:first-child{color:#9a5b00;font-weight:600}
.ok td:first-child{color:#1a7f5a}.info td:first-child{color:#888}
"""


def write_html_report(audit: Audit, path: Path) -> None:
    """Write the page atomically. Raises OSError if it cannot be written."""
    subject = audit.subject
    try:
        figures = [_figure(rendered(subject, VIEW_SIZE), "Lit, and as clay, from three sides.")]
    except ValueError as error:  # an asset without a size, or with a size that overflows
        figures = [f"<p>The asset cannot be rendered: {escape(str(error))}.</p>"]
    for atlas in subject.atlases[:MOST_LAYOUTS]:
        caption = f"Texture coordinates of {atlas.name}: {atlas.coverage:.0%} used; overlaps are red."
        figures.append(_figure(layout(subject, atlas, LAYOUT_SIZE), caption))
    findings = _table(audit.findings) if audit.findings else "<p>No errors and no warnings.</p>"
    sections = "".join(f"<h2>{escape(name.capitalize())}</h2>{_table(rows)}" for name, rows in audit.sections.items())
    name = escape(subject.file.path.name)
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1"><title>Audit of {name}</title>
<style>{STYLE}</style>
<h1>{name}</h1>
<p class="soft">{escape(audit.summary)}</p>
{findings}
<div>{"".join(figures)}</div>
{sections}</html>
"""
    write_atomically(path, page.encode("utf-8", "replace"))


def _table(rows: tuple[Finding, ...]) -> str:
    body = "".join(
        f'<tr class="{row.severity}"><td>{row.severity}</td><td>{row.check}</td><td>{escape(row.text)}</td>'
        f"<td>{escape(row.limit)}</td><td>{escape(row.remedy)}</td><td>{escape(row.where)}</td></tr>"
        for row in rows
    )
    head = "".join(f"<th>{title}</th>" for title in ("", "check", "value", "limit", "remedy", "where"))
    return f'<div class="table"><table><tr>{head}</tr>{body}</table></div>'


def _figure(pixels: UInt8[np.ndarray, "h w 3"], caption: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    text = escape(caption)
    source = data_uri(buffer.getvalue(), "png")
    return f'<figure><img src="{source}" alt="{text}"><figcaption>{text}</figcaption></figure>'
