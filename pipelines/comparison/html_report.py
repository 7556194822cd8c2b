"""HTML page of a comparison (compare.html): self-contained, without scripts, with embedded images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from ..files import write_atomically
from ..pages.document import STYLE
from ..pages.images import data_uri, reduced_image
from .candidates import Candidate, fixed_pairs
from .comparison import run_folder
from .intervals import LEVEL, Interval
from .plots import Panel, draw
from .results import DISTANCES, Results, chamfer, moment, relative, score

EXTRA_STYLE = "td,th{padding-right:1.6rem}td.best{font-weight:600}td{font-variant-numeric:tabular-nums}"
IMAGE_WIDTH = 900
COSINE = "cosine to SDS"


def write_report(results: Results, candidates: Sequence[Candidate], out: Path, command: str, machine: str) -> Path:
    """Write compare.html and plots/*.png into `out`; returns the path of the page."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    r = results
    runs = f"prompts: {len(r.prompts)}, seeds: {', '.join(map(str, r.seeds))}"
    sections = [
        _variance(r, out),
        _convergence(r, out),
        _quality(r),
        _seconds(r),
        _ablation(r, candidates),
        _images(r, out),
        _settings(r),
    ]
    page = f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>
<style>{STYLE}{EXTRA_STYLE}</style>
<h1>{escape(" · ".join(r.labels))}</h1>
<p class="soft">{runs}; {escape(machine)}<br><code>{escape(command)}</code></p>
<p>All methods use the same prompts, seeds and number of prior calls; a call is one prediction for one image, so a
guided prediction counts as two. Values are means with {LEVEL:.0%} confidence intervals (Student's t over the runs; in
logarithms for quantities that vary by factors); a single run has no interval. Comparisons with the first method pair
the runs by prompt and seed.</p>
{"".join(sections)}</html>
"""
    path = out / "compare.html"
    write_atomically(path, page.encode())
    return path


def _variance(r: Results, out: Path) -> str:
    if not any(m.variance for record in r.records for m in record.measurements):
        return ""
    panels = [
        Panel("total gradient variance", "trace of the covariance", _curves(r, moment("total"), True), True),
        Panel("total, relative to SDS at the same scene", "ratio", _curves(r, relative("total"), True), True, 1.0),
        Panel("over noise only, relative to SDS", "ratio", _curves(r, relative("noise"), True), True, 1.0),
        Panel("noise-to-signal ratio", "variance / |mean|²", _curves(r, moment("noise_to_signal"), True), True),
    ]
    columns = {
        "total / SDS": relative("total"),
        "over noise / SDS": relative("noise"),
        "over noise / SDS, per call": relative("noise", per_call=True),
        "total / SDS, image space": relative("image_total"),
        "noise-to-signal ratio": moment("noise_to_signal"),
        COSINE: moment("cosine"),
        "calls": moment("calls"),
        "ms per gradient": lambda m: 1000 * moment("seconds")(m),
        "ms to render and encode": lambda m: 1000 * moment("view_seconds")(m),
        "GFLOP per gradient": lambda m: moment("flops")(m) / 1e9,
    }
    rows = [
        [label, *(_cell(r.over_training(label, of, geometric=name != COSINE)) for name, of in columns.items())]
        for label in r.labels
    ]
    return (
        "<h2>Variance over training</h2>"
        + _plot(out, "variance", panels)
        + _table(["method", *columns], rows)
        + _note(
            "Variances of the gradient with respect to the scene's parameters, at each method's own scenes; "
            "geometric means over the measurements of a run (cosines: arithmetic means). SDS is measured at the same "
            "scene with the same noise levels, cameras and noise. A cosine well below 1 to the mean gradient of SDS "
            "means that a method optimizes a different objective; its variance alone then says little."
        )
    )


def _convergence(r: Results, out: Path) -> str:
    thresholds = {prompt: r.threshold(prompt) for prompt in r.prompts}
    panels = [
        Panel(prompt, r.score_name, {label: r.curve(label, score, prompt) for label in r.labels}, line=line)
        for prompt, line in thresholds.items()
    ]
    rows = []
    for label in r.labels:
        calls, ratio, there = r.convergence(label, thresholds)
        rows.append([label, _cell(calls, 4), _cell(ratio), f"{there} of {len(r.of(label))}"])
    header = ["method", "calls to reach the threshold", f"relative to {r.labels[0]}", "runs that reached it"]
    return (
        "<h2>Convergence</h2>"
        + _plot(out, "convergence", panels)
        + _table(header, rows)
        + _note(
            f"{r.score_name}, {'larger' if r.larger_is_better else 'smaller'} is better. The threshold of a prompt "
            "(dashed) is the worst mean final score of all methods. A run that does not reach it counts with its "
            "full budget."
        )
    )


def _quality(r: Results) -> str:
    out = f"<h2>Final quality</h2><h3>{escape(r.score_name)}</h3>" + _by_prompt(r, score, r.larger_is_better)
    rows = [[label, _cell(r.final(label, score), 4), _cell(r.gain(label, score))] for label in r.labels]
    out += _table(["method", "mean over all runs", f"minus {r.labels[0]}"], rows)
    for distance in DISTANCES.values():
        known = any(math.isfinite(distance.of(record.measurements[-1])) for record in r.records)
        if known and distance.title != r.score_name:
            out += f"<h3>{escape(distance.title)}</h3>" + _by_prompt(r, distance.of, distance.larger_is_better)
    return out


def _seconds(r: Results) -> str:
    rows = [
        [label, _cell(r.seconds_per_step(label)), str(r.of(label)[0].trial.calls_per_step), str(_steps(r, label))]
        for label in r.labels
    ]
    header = ["method", "seconds per step", "calls per step", "steps"]
    note = (
        "Wall-clock time without measurements and checkpoints; comparable only on an otherwise idle machine (--jobs 1)."
    )
    return "<h2>Time</h2>" + _table(header, rows) + _note(note)


def _ablation(r: Results, candidates: Sequence[Candidate]) -> str:
    pairs = fixed_pairs(candidates)
    if not pairs:
        return ""
    rows = [
        [
            candidate.label,
            "learned" if candidate is pair[0] else "fixed",
            _cell(r.over_training(candidate.label, relative("total"))),
            _cell(r.final(candidate.label, score), 4),
            _cell(r.final(candidate.label, chamfer)),
        ]
        for pair in pairs
        for candidate in pair
    ]
    header = ["method", "coefficients", "total variance / SDS", r.score_name, "chamfer (mm)"]
    note = "With only the terms noise and spectral, fixed coefficients reduce to SDS."
    return "<h2>Learned versus fixed coefficients</h2>" + _table(header, rows) + _note(note)


def _images(r: Results, out: Path) -> str:
    figures = []
    for prompt in r.prompts:
        figures.append(f"<h3>{escape(prompt)}</h3>")
        for label in r.labels:
            trial = r.of(label, prompt)[0].trial
            path = run_folder(trial, out) / "previews" / "final.png"
            if path.is_file():
                caption = escape(f"{label}, seed {trial.seed}")
                figures.append(_figure(path, caption))
    return "<h2>Scenes after the last step</h2>" + "".join(figures)


def _figure(path: Path, caption: str) -> str:
    try:
        image = reduced_image(path, IMAGE_WIDTH)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):  # raised by Pillow for damaged files
        return f"<figure><figcaption>{caption}: {escape(str(path))} is damaged</figcaption></figure>"
    return f'<figure><img src="{image}" alt="{caption}"><figcaption>{caption}</figcaption></figure>'


def _settings(r: Results) -> str:
    rows = [[label, " ".join(r.of(label)[0].trial.settings)] for label in r.labels]
    return "<h2>Settings</h2>" + _table(["method", "settings"], rows)


def _steps(r: Results, label: str) -> int:
    return r.of(label)[0].measurements[-1].step


def _curves(r: Results, quantity: Callable, geometric: bool) -> dict[str, list[tuple[float, Interval]]]:
    return {label: r.curve(label, quantity, geometric=geometric) for label in r.labels}


def _by_prompt(r: Results, quantity: Callable, larger: bool) -> str:
    rows = []
    for label in r.labels:
        rows.append([label, *(_cell(r.final(label, quantity, prompt), 4) for prompt in r.prompts)])
    best = []
    for prompt in r.prompts:
        means = [r.final(label, quantity, prompt).mean for label in r.labels]
        known = [mean for mean in means if math.isfinite(mean)]
        best.append(means.index((max if larger else min)(known)) if known else -1)
    return _table(["method", *r.prompts], rows, {(row, column + 1) for column, row in enumerate(best)})


def _cell(interval: Interval, digits: int = 3) -> str:
    if not math.isfinite(interval.mean):
        return "–"
    mean = f"{interval.mean:.{digits}g}"
    if not math.isfinite(interval.low):
        return mean
    return f"{mean} [{interval.low:.{digits}g}, {interval.high:.{digits}g}]"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], best: set[tuple[int, int]] | None = None) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in header)
    body = ""
    for i, row in enumerate(rows):
        cells = (
            f'<td class="best">{escape(cell)}</td>' if best and (i, j) in best else f"<td>{escape(cell)}</td>"
            for j, cell in enumerate(row)
        )
        body += f"<tr>{''.join(cells)}</tr>\n"
    return f"<table><tr>{head}</tr>\n{body}</table>\n"


def _note(text: str) -> str:
    return f'<p class="soft">{escape(text)}</p>\n'


def _plot(out: Path, name: str, panels: Sequence[Panel]) -> str:
    image = draw(panels)
    write_atomically(out / "plots" / f"{name}.png", image)
    return f'<figure><img src="{data_uri(image, "png")}" alt="{escape(name)}"></figure>\n'
