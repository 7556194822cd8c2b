"""HTML report of a run (report.html): one page without scripts or external resources."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from ..config.run_config import RunConfig
from ..export import ExportReport
from ..export.asset import IMAGE_NAME, MAPS_NAME
from ..files import read_regular, write_atomically

STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#222}
h1{margin:0}h2{margin:2rem 0 .5rem;font-size:1.15rem}.soft{color:#666}a{color:#164}
.top{display:flex;gap:2rem;align-items:center;flex-wrap:wrap;margin-top:1rem}.top img{border:1px solid #ddd}
figure{margin:0 0 1rem}img{max-width:100%}figcaption,.soft{font-size:.87rem;color:#666}
table{border-collapse:collapse}td,th{padding:.15rem 1.2rem .15rem 0;text-align:left;font-weight:normal}th{color:#666}
svg{background:#f7f7f7;display:block}text{font:11px system-ui,sans-serif;fill:#666}
pre{background:#f7f7f7;padding:1rem;overflow:auto}
"""
COLORS = ("#1a7f5a", "#c2571a")


def write_report(folder: Path, config: RunConfig, exports: Sequence[ExportReport], seconds: float) -> None:
    """Write `folder`/report.html from the run's own files.

    Args:
        folder: Folder of the run.
        config: Resolved settings.
        exports: One report per particle; empty without an asset.
        seconds: Duration of the whole run.
    """
    records = _records(folder / "metrics.jsonl")
    names = config.names
    turntable = (
        '<img src="turntable.webp" alt="turntable of the scene">' if (folder / "turntable.webp").exists() else ""
    )
    stages = ", ".join(f"{name} {stage.steps}" for name, stage in config.active_stages().items())
    asset = "".join(_asset(export, folder, index) for index, export in enumerate(exports))
    variances = {"variance": names["method"].upper()}
    if names["method"] != "sds":
        variances["variance_sds"] = "SDS with the same draws"
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(config.prompt)}</title>
<style>{STYLE}</style>
<h1>{escape(config.prompt)}</h1>
<p class="soft">{escape(config.first_representation)} by {escape(names["method"])} with prior {escape(names["prior"])},
{stages} steps, seed {config.seed}, {seconds:.0f} s in total</p>
<div class="top">{turntable}<div>{_table(_facts(exports[0])) if exports else ""}<p>{_links(folder)}</p></div></div>
{asset}<h2>The scene</h2>
{_figure("previews/final.png", "After the last step: color, clay and normals.")}
<h2>Optimization</h2>
{_chart(records, {"loss": "half the squared weighted residual, summed over the latent"}, "distillation loss")}
{_chart(records, variances, "gradient variance over noise draws, summed over the latent")}
<details><summary>Settings</summary><pre>{escape((folder / "config.yaml").read_text(encoding="utf-8"))}</pre></details>
</html>
"""
    write_atomically(folder / "report.html", page.encode("utf-8", "replace"))


def _records(training_log: Path) -> list[dict[str, float]]:
    """Read the numeric values of each line of the training_log; lines that are not records are skipped."""
    if not training_log.exists():
        return []
    found = []
    for line in read_regular(training_log).decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
            values = {key: float(value) for key, value in record.items() if isinstance(value, int | float)}
        except (ValueError, AttributeError, OverflowError, RecursionError):
            continue
        if math.isfinite(values.get("step", math.nan)):
            found.append({key: value for key, value in values.items() if math.isfinite(value)})
    return found


def _asset(export: ExportReport, folder: Path, particle: int) -> str:
    """Render the section of one particle; the facts about the first one are at the top of the page."""
    beside = export.path.parent.relative_to(folder).as_posix()
    image = _figure(f"{beside}/{IMAGE_NAME}", "The exported mesh under light, as clay, and its base color.") + _figure(
        f"{beside}/{MAPS_NAME}", f"Its maps: {', '.join(export.maps)}."
    )
    if particle == 0:
        return f"<h2>The asset</h2>{image}\n"
    return f"<h2>The asset of particle {particle + 1}</h2>{_table(_facts(export))}{image}\n"


def _facts(export: ExportReport) -> dict[str, str]:
    if export.painted is None:
        made = {
            "deviation from the detailed surface": f"{export.deviation:.2%} of the diagonal",
            "normal map": "yes" if export.normal_map else "none, it would add no detail",
        }
    else:
        made = {"painted": f"{export.painted:.1%} of the texture; all else is as in the file"}
    return {
        "triangles": f"{export.faces:,}",
        "vertices": f"{export.vertices:,}",
        "surface": "watertight" if export.watertight else "not watertight",
        "size": f"{' x '.join(f'{extent:.3g}' for extent in export.size_meters)} m (width x height x depth)",
        **made,
        "color difference from the scene": f"{export.color_difference:.2f} (mean CIEDE2000; 2 is barely visible)",
        "silhouette overlap with the scene": f"{export.silhouette_iou:.1%}",
        "export time": f"{sum(export.seconds.values()):.0f} s",
    }


def _table(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in facts.items())
    return f"<table>{rows}</table>"


def _links(folder: Path) -> str:
    """Render links to every file of the asset and to the training_log."""
    asset = folder / "asset"
    files = [*sorted(asset.glob("*")), *sorted(asset.glob("*/*")), folder / "metrics.jsonl"]
    return " · ".join(
        f'<a href="{escape(path.relative_to(folder).as_posix())}">{escape(_name(path, asset))}</a> {_size(path)}'
        for path in files
        if path.is_file()
    )


def _name(path: Path, asset: Path) -> str:
    """Return the path relative to the asset's folder."""
    return path.relative_to(asset).as_posix() if path.is_relative_to(asset) else path.name


def _size(path: Path) -> str:
    size = path.stat().st_size
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 else f"{size / 2**10:.0f} KiB"


def _figure(source: str, caption: str) -> str:
    text = escape(caption)
    return f'<figure><a href="{source}"><img src="{source}" alt="{text}"></a><figcaption>{text}</figcaption></figure>'


def _chart(records: Sequence[Mapping[str, float]], curves: Mapping[str, str], title: str = "") -> str:
    """Render curves over the steps on one linear axis from 0; empty for fewer than two points."""
    points = {key: [(record["step"], record[key]) for record in records if key in record] for key in curves}
    if min(len(curve) for curve in points.values()) < 2:
        return ""
    width, height, left, bottom = 720, 180, 60, 24
    last = max(curve[-1][0] for curve in points.values())
    top = max(value for curve in points.values() for _, value in curve) or 1.0
    scale_x, scale_y = (width - left - 10) / last, (height - bottom - 12) / top
    lines, legend = "", []
    for (key, curve), color in zip(points.items(), COLORS, strict=False):
        path = " ".join(f"{left + x * scale_x:.1f},{height - bottom - y * scale_y:.1f}" for x, y in curve)
        lines += f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        legend.append(f'<span style="color:{color}">{escape(curves[key])}</span>')
    caption = (f"{escape(title)}: " if title else "") + ", ".join(legend)
    return f"""<figure><figcaption>{caption}</figcaption>
<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img">
<path d="M{left} 8V{height - bottom}H{width - 10}" fill="none" stroke="#bbb"/>
<text x="{left - 6}" y="16" text-anchor="end">{top:.2g}</text>
<text x="{left - 6}" y="{height - bottom}" text-anchor="end">0</text>
<text x="{width - 10}" y="{height - 8}" text-anchor="end">step {last:.0f}</text>{lines}</svg></figure>"""
