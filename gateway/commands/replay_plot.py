"""Draws replayed settings: accuracy against samples and against tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.chart import COLOURS, GREY, LegendEntry, Line, Panel, Point, accuracy_chart
from policies.replay import ReplayMetrics

__all__ = ["replay_chart"]


def replay_chart(metrics: Sequence[ReplayMetrics]) -> str:
    """Return an SVG of two panels: accuracy over mean samples and over mean tokens for one question.

    A line joins the settings of one family ("pass@k", "majority@k"), and both lines start at pass@1. A
    vertical bar is the 95% interval. Raises ChartsUnavailable.
    """
    single_names = [row.name for row in metrics if not _family(row.name)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(single_names)}
    legend = [LegendEntry("pass@k, oracle", mark="dashes"), LegendEntry("majority@k", mark="line")]
    legend += [LegendEntry(name, colour) for name, colour in colours.items()]
    panels = [
        _panel(metrics, "samples", lambda row: row.samples, colours),
        _panel(metrics, "tokens", lambda row: row.tokens, colours),
    ]
    return accuracy_chart(panels, legend)


def _family(name: str) -> str:
    """Return the line on which a setting lies; empty for a setting on no line."""
    if name.startswith("pass@") or name == "oracle":
        return "pass@k"
    return "majority@k" if name.startswith("majority@") or name == "majority" else ""


def _panel(
    metrics: Sequence[ReplayMetrics],
    unit: str,
    cost: Callable[[ReplayMetrics], float],
    colours: dict[str, str],
) -> Panel:
    lines = [
        Line(
            [
                (cost(row), row.accuracy)
                for row in metrics
                if _family(row.name) == family or row.name == "pass@1"
            ],
            dashed=family == "pass@k",
        )
        for family in ("pass@k", "majority@k")
    ]
    points = [
        Point(row.name, cost(row), row.accuracy, row.low, row.high, colours.get(row.name, GREY))
        for row in metrics
    ]
    return Panel(unit, points, lines)
