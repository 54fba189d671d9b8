"""A stage's curves as an SVG: reward, accuracy, length, share of groups that taught something, entropy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from policies.chart import COLOURS

__all__ = ["curves", "read_metrics"]

WIDTH, HEIGHT, GAP = 300, 160, 60
PANELS: Mapping[str, Sequence[str]] = {
    "accuracy": ("held out", "accuracy"),
    "reward": ("total", "format"),
    "tokens": ("length", "thinking", "limit"),
    "groups": ("live", "cut_off"),
    "entropy (nats)": ("entropy",),
    "loss": ("loss",),
}
"""Each panel's title and the figures it shows; a panel without any is left out."""

Curve = list[tuple[float, float]]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a stage's metrics file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curves(metrics: Sequence[Mapping[str, Any]], title: str) -> str:
    """The SVG, two panels a row; noisy figures are smoothed over 15 steps, held-out accuracy is not."""
    panels = []
    for name, figures in PANELS.items():
        found = {figure: _curve(metrics, figure) for figure in figures}
        if kept := {figure: curve for figure, curve in found.items() if len(curve) > 1}:
            panels.append((name, kept))
    rows = -(-len(panels) // 2)
    width, height = 2 * (WIDTH + GAP) + GAP, rows * (HEIGHT + GAP) + GAP
    body = [
        _panel(name, kept, GAP + place % 2 * (WIDTH + GAP), GAP + place // 2 * (HEIGHT + GAP))
        for place, (name, kept) in enumerate(panels)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<text x="{GAP}" y="24" font-size="14">{escape(title)}</text>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _curve(metrics: Sequence[Mapping[str, Any]], figure: str) -> Curve:
    if figure == "held out":
        return [(line["step"], line["evaluation"]["accuracy"]) for line in metrics if "evaluation" in line]
    raw = [(line["step"], line[figure]) for line in metrics if line.get(figure) == line.get(figure, 0.0)]
    raw = [(step, value) for step, value in raw if value is not None]
    smooth: Curve = []
    for place, (step, _) in enumerate(raw):
        near = [value for _, value in raw[max(0, place - 7) : place + 8]]
        smooth.append((step, sum(near) / len(near)))
    return smooth


def _panel(name: str, found: Mapping[str, Curve], left: int, top: int) -> str:
    every = [point for curve in found.values() for point in curve]
    first, last = min(step for step, _ in every), max(step for step, _ in every)
    low, high = min(value for _, value in every), max(value for _, value in every)
    span, steps = (high - low) or 1.0, (last - first) or 1
    bottom = top + HEIGHT
    parts = [
        f'<path d="M{left} {top}V{bottom}H{left + WIDTH}" fill="none" stroke="#444"/>',
        f'<text x="{left}" y="{top - 8}">{escape(name)}</text>',
        f'<text x="{left - 4}" y="{top + 8}" text-anchor="end">{high:.3g}</text>',
        f'<text x="{left - 4}" y="{bottom}" text-anchor="end">{low:.3g}</text>',
        f'<text x="{left + WIDTH}" y="{bottom + 14}" text-anchor="end">step {last:g}</text>',
    ]
    for place, (figure, curve) in enumerate(found.items()):
        path = " ".join(
            f"{left + WIDTH * (step - first) / steps:.1f},{bottom - HEIGHT * (value - low) / span:.1f}"
            for step, value in curve
        )
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        parts.append(
            f'<text x="{left + WIDTH}" y="{top + 10 + 13 * place}" text-anchor="end" fill="{colour}">'
            f"{escape(figure)}</text>"
        )
    return "\n".join(parts)
