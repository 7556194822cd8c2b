"""report.html: one self-contained page about a run (no scripts, nothing fetched)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path

from .config import RunConfig
from .export import ExportReport
from .files import write_atomically

STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#222}"
    "img{max-width:100%}table{border-collapse:collapse}td,th{padding:.15rem .8rem .15rem 0;text-align:left}"
    "svg{background:#f6f6f6}pre{background:#f6f6f6;padding:1rem;overflow:auto}"
)
CURVES = {
    "loss": "mean square of the residual",
    "variance": "within-noise variance of the gradient",
    "variance_sds": "the same for SDS, same draws",
}


def write_report(folder: Path, config: RunConfig, export: ExportReport) -> None:
    """Write `folder`/report.html from the run's own files."""
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    turntable = '<img src="turntable.webp" alt="turntable">' if (folder / "turntable.webp").exists() else ""
    facts = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{escape(_text(value))}</td></tr>"
        for name, value in asdict(export).items()
    )
    curves = "".join(_curve(records, key, label) for key, label in CURVES.items())
    settings = escape((folder / "config.yaml").read_text(encoding="utf-8"))
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(config.prompt)}</title>'
        f"<style>{STYLE}</style><h1>{escape(config.prompt)}</h1>{turntable}"
        f'<p><img src="previews/final.png" alt="eight views and one from above: colour and normals"></p>'
        f"<h2>Asset</h2><table>{facts}</table><h2>Optimisation</h2>{curves}<h2>Settings</h2><pre>{settings}</pre></html>"
    )
    write_atomically(folder / "report.html", page.encode())


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return str(value)


def _curve(
    records: Sequence[Mapping[str, float | int]], key: str, label: str, width: int = 640, height: int = 140
) -> str:
    points = [(record["step"], record[key]) for record in records if key in record]
    if len(points) < 2:
        return ""
    last, top = points[-1][0], max(value for _, value in points) or 1.0
    line = " ".join(f"{step / last * width:.1f},{height - value / top * (height - 10):.1f}" for step, value in points)
    return (
        f"<p>{escape(label)} (largest {top:.3g}, last {points[-1][1]:.3g})<br>"
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img"'
        f' aria-label="{escape(label)}">'
        f'<polyline points="{line}" fill="none" stroke="#2a6" stroke-width="1.5"/></svg></p>'
    )
