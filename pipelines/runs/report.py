"""HTML report of a run (report.html): one page with the asset in it, which loads nothing."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from pathlib import Path

from PIL import Image

from ..config.run_config import RunConfig
from ..export import ExportReport
from ..files import read_regular, write_atomically
from ..optimization.edits import Edit
from ..pages.asset_view import AssetView, asset_model, asset_view
from ..pages.charts import line_chart
from ..pages.document import html_document
from ..pages.images import data_uri, reduced_image
from .training_log import read_records

IMAGE_WIDTH = 1280
"""Largest width of an embedded preview grid in pixels."""
STYLE = """
.grid{min-width:40rem}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,20rem),1fr));gap:1rem}
.top{display:flex;gap:2rem;align-items:flex-start;flex-wrap:wrap;margin-top:1rem}.files{max-width:24rem}
"""


def write_report(
    folder: Path, config: RunConfig, exports: Sequence[ExportReport], seconds: float, edits: Sequence[Edit] = ()
) -> None:
    """Write `folder`/report.html from the run's own files.

    Args:
        folder: Folder of the run.
        config: Resolved settings.
        exports: One report per particle; empty without an asset.
        seconds: Duration of the whole run.
        edits: Settings that were changed while it ran.
    """
    names = config.names
    stages = ", ".join(f"{name} {stage.steps}" for name, stage in config.active_stages().items())
    view, asset = _asset(exports)
    settings = (folder / "config.yaml").read_text(encoding="utf-8")
    body = f"""<h1>{escape(config.prompt)}</h1>
<p class="soft">{escape(config.first_representation)} by {escape(names["method"])} with prior {escape(names["prior"])},
{stages} steps, seed {config.seed}, {seconds:.0f} s in total</p>
{asset}
<h2>Files</h2>
<div class="top">{_turntable(folder)}<p class="files">{_links(folder)}</p></div>
<h2>The scene</h2>
{_grid(folder, "final", "after the last step: color, clay and normals")}
{_conversions(folder, config)}
<h2>Optimization</h2>
<div class="charts">{_charts(folder, config)}</div>
<h2>Repeat this run</h2>
<p>In the run's folder:</p>
<pre>{escape(_command(config))}</pre>
{_edits(edits)}
<details><summary>Settings</summary><pre>{escape(settings)}</pre></details>
"""
    page = html_document(config.prompt, body, style=STYLE + view.style, script=view.script)
    write_atomically(folder / "report.html", page.encode("utf-8", "replace"))


def _edits(edits: Sequence[Edit]) -> str:
    """The changes of settings that the command does not repeat, as HTML."""
    if not edits:
        return ""
    items = "".join(f"<li>{escape(str(each))}</li>" for each in edits)
    return f"<p>These settings were changed while it ran, which the command does not repeat:</p><ul>{items}</ul>"


def _asset(exports: Sequence[ExportReport]) -> tuple[AssetView, str]:
    """The view of the assets of all particles, and the section with it and their facts."""
    if not exports:
        return AssetView("", "", ""), ""
    several = len(exports) > 1
    try:
        view = asset_view(
            [asset_model(export.path, f"particle {i + 1}" if several else "asset") for i, export in enumerate(exports)]
        )
    except OSError as error:
        text = escape(f"The asset is not in this page: {error.filename}: {error.strerror}.")
        view = AssetView(f"<p>{text}</p>", "", "")
    tables = ""
    for index, export in enumerate(exports):
        tables += (f"<h3>Particle {index + 1}</h3>" if several else "") + _table(_facts(export))
    return view, f"<h2>The asset</h2>{view.html}{tables}"


def _facts(export: ExportReport) -> dict[str, str]:
    if export.painted is None:
        made = {
            "deviation from the detailed surface": f"{export.deviation:.2%} of the diagonal",
            "normal map": "yes" if export.normal_map else "none, it would add no detail",
            "levels of detail": " > ".join(f"{level.triangles:,}" for level in export.levels) + " triangles",
            "collider": "none" if export.collider is None else f"{export.collider.hulls} convex hulls",
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


def _turntable(folder: Path) -> str:
    path = folder / "turntable.webp"
    if not path.is_file():
        return ""
    return f'<img src="{data_uri(read_regular(path), "webp")}" alt="turntable of the scene">'


def _links(folder: Path) -> str:
    """Render links to every file of the asset, and to the files of the run."""
    asset = folder / "asset"
    beside = ("turntable.webp", "metrics.jsonl", "config.yaml")
    files = [*sorted(asset.glob("*")), *sorted(asset.glob("*/*")), *(folder / name for name in beside)]
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


def _conversions(folder: Path, config: RunConfig) -> str:
    """Render the preview grids before and after each conversion between stages."""
    stages, out = list(config.active_stages()), ""
    for before, after in pairwise(stages):
        if config.takes_over(after):
            out += _grid(folder, before, f"before the conversion: the end of stage {before}")
            out += _grid(folder, f"{after}-start", f"after the conversion: the start of stage {after}")
    return f"<h2>Conversions</h2>{out}" if out else ""


def _grid(folder: Path, name: str, caption: str) -> str:
    """Render a preview grid; empty if there is none, or if it is damaged."""
    path, text = folder / "previews" / f"{name}.png", escape(caption)
    try:
        image = reduced_image(path, IMAGE_WIDTH)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # raised by Pillow for damaged files
        return ""
    return (
        f'<figure><div class="scroll"><a href="previews/{escape(name)}.png"><img class="grid" src="{image}" '
        f'alt="{text}"></a></div><figcaption>{text}</figcaption></figure>'
    )


def _charts(folder: Path, config: RunConfig) -> str:
    records = read_records(folder / "metrics.jsonl")
    borders, step = {}, 0
    for name, stage in config.active_stages().items():
        borders[name] = step
        step += stage.steps

    def curve(key: str) -> list[tuple[float, float]]:
        return [(record["step"], record[key]) for record in records if key in record]

    variances = {config.names["method"].upper(): curve("variance")}
    ratio = ""
    if config.names["method"] != "sds":
        variances["SDS with the same draws"] = curve("variance_sds")
        ratios = [r["variance"] / r["variance_sds"] for r in records if "variance" in r and r.get("variance_sds")]
        ratio = f" ({sum(ratios) / len(ratios):.0%} of SDS on average)" if ratios else ""
    loss = {"half the squared weighted residual, summed over the latent": curve("loss")}
    return (
        line_chart("distillation loss", loss, borders)
        + line_chart(f"gradient variance over noise draws, summed over the latent{ratio}", variances, borders)
        + line_chart("time", {"seconds per step": curve("seconds_per_step")}, borders)
    )


def _command(config: RunConfig) -> str:
    """The command that repeats the run from its folder into a new one."""
    plugins = [word for path in config.plugins for word in ("--plugin", path)]
    return shlex.join(["steindreamer", "run", "--preset", "config.yaml", *plugins, "--out", "again"])
