"""Replayed settings as a picture: accuracy against samples and against tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from policies.chart import COLOURS, GREY, Entry, Line, Panel, Point, chart
from policies.replay import ReplayMetrics

__all__ = ["svg"]


def svg(figures: Sequence[ReplayMetrics]) -> str:
    """Two panels: percent right over mean samples, and over mean tokens, for one question.

    The settings of one family ("pass@k", "majority@k") are joined by a line, and both
    lines start at pass@1; a vertical bar is the 95% interval.
    """
    alone = [figure.name for figure in figures if not _family(figure.name)]
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(alone)}
    legend = [Entry("pass@k, oracle", mark="dashes"), Entry("majority@k", mark="line")]
    legend += [Entry(name, colour) for name, colour in colours.items()]
    panels = [
        _panel(figures, "samples", lambda figure: figure.samples, colours),
        _panel(figures, "tokens", lambda figure: figure.tokens, colours),
    ]
    return chart(panels, legend)


def _family(name: str) -> str:
    """The line a setting lies on; empty for one that stands alone."""
    if name.startswith("pass@") or name == "oracle":
        return "pass@k"
    return "majority@k" if name.startswith("majority@") or name == "majority" else ""


def _panel(
    figures: Sequence[ReplayMetrics], unit: str, cost: Callable[[ReplayMetrics], float], colours: dict[str, str]
) -> Panel:
    lines = [
        Line(
            [(cost(f), f.accuracy) for f in figures if _family(f.name) == family or f.name == "pass@1"],
            dashed=family == "pass@k",
        )
        for family in ("pass@k", "majority@k")
    ]
    points = [Point(f.name, cost(f), f.accuracy, f.low, f.high, colours.get(f.name, GREY)) for f in figures]
    return Panel(unit, points, lines)
