"""Draws a stage's curves: reward, accuracy, length, share of groups with a gradient, entropy, loss."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from policies.chart import COLOURS, new_figure, to_svg

__all__ = ["curves", "read_metrics"]

PANELS: Mapping[str, Sequence[str]] = {
    "accuracy": ("held out", "accuracy"),
    "reward": ("total", "format"),
    "tokens": ("length", "thinking", "limit"),
    "groups": ("live", "cut_off"),
    "entropy (nats)": ("entropy",),
    "loss": ("loss",),
}
"""Each panel's title and the metrics it shows; a panel without any is left out."""

Curve = list[tuple[float, float]]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a stage's metrics file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def curves(metrics: Sequence[Mapping[str, Any]], title: str) -> str:
    """Return an SVG with two panels a row. Raises ChartsUnavailable.

    Noisy metrics are smoothed over 15 steps; held-out accuracy is not.
    """
    panels: dict[str, dict[str, Curve]] = {}
    for name, shown in PANELS.items():
        lines = {metric: _curve(metrics, metric) for metric in shown}
        if long_enough := {metric: curve for metric, curve in lines.items() if len(curve) > 1}:
            panels[name] = long_enough
    rows = -(-len(panels) // 2)
    with new_figure(8.0, 0.5 + 2.4 * rows) as figure:
        figure.suptitle(title)
        for number, (name, lines) in enumerate(panels.items()):
            axes = figure.add_subplot(rows, 2, number + 1)
            axes.set_title(name, loc="left")
            axes.set_xlabel("step")
            for colour, (metric, curve) in zip(COLOURS, lines.items(), strict=False):
                steps, values = zip(*curve, strict=True)
                axes.plot(steps, values, color=colour, label=metric)
            axes.legend()
        return to_svg(figure)


def _curve(metrics: Sequence[Mapping[str, Any]], metric: str) -> Curve:
    if metric == "held out":
        return [(line["step"], line["evaluation"]["accuracy"]) for line in metrics if "evaluation" in line]
    raw = [(line["step"], line[metric]) for line in metrics if line.get(metric) == line.get(metric, 0.0)]
    raw = [(step, value) for step, value in raw if value is not None]
    smooth: Curve = []
    for index, (step, _) in enumerate(raw):
        near = [value for _, value in raw[max(0, index - 7) : index + 8]]
        smooth.append((step, sum(near) / len(near)))
    return smooth
