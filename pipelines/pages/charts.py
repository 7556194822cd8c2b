"""Line charts as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#1a7f5a", "#c2571a")
WIDTH, HEIGHT, LEFT, BOTTOM = 400, 190, 52, 24


def line_chart(
    title: str, curves: Mapping[str, Sequence[tuple[float, float]]], borders: Mapping[str, float] | None = None
) -> str:
    """A figure of curves over the steps on one linear axis from 0; empty if a curve has fewer than two points.

    Args:
        title: Plain text of the caption.
        curves: Points (step, value) by the plain text of the legend; at most two curves.
        borders: First steps of the stages, by their names.
    """
    if not curves or min(map(len, curves.values())) < 2:
        return ""
    last = max(points[-1][0] for points in curves.values())
    top = max(value for points in curves.values() for _, value in points) or 1.0
    scale_x, scale_y = (WIDTH - LEFT - 10) / last, (HEIGHT - BOTTOM - 20) / top
    lines, legend = "", []
    for name, step in (borders or {}).items():
        x = LEFT + step * scale_x
        lines += f'<path d="M{x:.1f} 18V{HEIGHT - BOTTOM}" stroke="#ddd"/>'
        lines += f'<text x="{x + 3:.1f}" y="14">{escape(name)}</text>'
    for (name, points), color in zip(curves.items(), COLORS, strict=False):
        path = " ".join(f"{LEFT + x * scale_x:.1f},{HEIGHT - BOTTOM - y * scale_y:.1f}" for x, y in points)
        lines += f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.5"/>'
        legend.append(f'<span style="color:{color}">{escape(name)}</span>')
    return f"""<figure><svg viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img" aria-label="{escape(title)}">
<path d="M{LEFT} 18V{HEIGHT - BOTTOM}H{WIDTH - 10}" fill="none" stroke="#bbb"/>
<text x="{LEFT - 6}" y="26" text-anchor="end">{top:.3g}</text>
<text x="{LEFT - 6}" y="{HEIGHT - BOTTOM}" text-anchor="end">0</text>
<text x="{WIDTH - 10}" y="{HEIGHT - 8}" text-anchor="end">step {last:.0f}</text>{lines}</svg>
<figcaption>{escape(title)}: {", ".join(legend)}</figcaption></figure>"""
