"""Charts as SVG, drawn by matplotlib (the extra `plot`), in one look for replay, evaluation and training.

matplotlib is loaded when the first chart is drawn, so that a gateway never pays for it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

__all__ = [
    "COLOURS",
    "GREY",
    "ChartsUnavailable",
    "LegendEntry",
    "Line",
    "Panel",
    "Point",
    "accuracy_chart",
    "new_figure",
    "require_charts",
    "to_svg",
]

GREY = "#777777"
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#3aa6a6", "#7a5230", "#5b5f97")
_RING = "#222222"
_DASHES = (0, (5, 4))
_STYLE = {
    "axes.edgecolor": "#444444",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.family": "sans-serif",
    "font.size": 9,
    "legend.frameon": False,
    "svg.fonttype": "none",  # text stays text: small files that can be searched
    "svg.hashsalt": "thinkgate",  # the same chart is the same file
}


class ChartsUnavailable(Exception):
    """matplotlib is not installed; the message says how to install it."""


@dataclass(frozen=True, slots=True)
class Point:
    """A setting: its mean cost, its accuracy in percent and the interval's ends; `ring` highlights it."""

    name: str
    cost: float
    accuracy: float
    low: float
    high: float
    colour: str = GREY
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """A line through settings of one kind, as (cost, accuracy) pairs; it is drawn in order of cost."""

    points: Sequence[tuple[float, float]]
    colour: str = GREY
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: accuracy in percent over the cost of one question in `unit`."""

    unit: str
    points: Sequence[Point]
    lines: Sequence[Line] = ()


@dataclass(frozen=True, slots=True)
class LegendEntry:
    """One row of the legend."""

    name: str
    colour: str = GREY
    mark: Literal["dot", "line", "dashes", "ring"] = "dot"


def require_charts() -> None:
    """Raise ChartsUnavailable where matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise ChartsUnavailable("charts need matplotlib: pip install 'thinkgate[plot]'")


def accuracy_chart(panels: Sequence[Panel], legend: Sequence[LegendEntry]) -> str:
    """Return the SVG of the panels side by side with a legend. Raises ChartsUnavailable.

    A vertical bar is a point's interval. Its tooltip names the point.
    """
    tooltips: dict[str, str] = {}
    with new_figure(5.0 * len(panels) + 2.2, 4.4) as figure:
        for number, panel in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            tooltips |= _draw_panel(axes, panel, f"panel{number}")
        handles = [_legend_handle(entry) for entry in legend]
        figure.legend(handles=handles, loc="outside right upper")
        return to_svg(figure, tooltips)


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """Yield a figure of this size in inches, in the common style. Raises ChartsUnavailable."""
    require_charts()
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def to_svg(figure: Figure, tooltips: Mapping[str, str] | None = None) -> str:
    """Return the figure as an SVG element; `tooltips` has the text for the group of each gid."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    svg = text[text.index("<svg") :]
    for gid, tooltip in (tooltips or {}).items():
        group = f'<g id="{gid}">'
        svg = svg.replace(group, f"{group}\n<title>{escape(tooltip)}</title>", 1)
    return svg


def _draw_panel(axes: Axes, panel: Panel, name: str) -> dict[str, str]:
    """Draw a panel and return its tooltips."""
    tooltips = {}
    for line in panel.lines:
        if not line.points:
            continue
        costs, accuracies = zip(*sorted(line.points), strict=True)
        axes.plot(costs, accuracies, color=line.colour, linestyle=_DASHES if line.dashed else "-")
    for number, point in enumerate(panel.points):
        if point.ring:
            axes.plot(point.cost, point.accuracy, "o", markersize=12, fillstyle="none", color=_RING)
        axes.vlines(point.cost, point.low, point.high, color=point.colour, alpha=0.4)
        gid = f"{name}-point{number}"
        axes.plot(point.cost, point.accuracy, "o", markersize=6, color=point.colour, gid=gid)
        tooltips[gid] = f"{point.name}: {point.accuracy:.1f}% at {point.cost:.1f} {panel.unit}"
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{panel.unit} for one question")
    axes.set_ylabel("% right")
    return tooltips


def _legend_handle(entry: LegendEntry) -> Line2D:
    from matplotlib.lines import Line2D

    if entry.mark in {"line", "dashes"}:
        linestyle = _DASHES if entry.mark == "dashes" else "-"
        return Line2D([], [], color=entry.colour, linestyle=linestyle, label=entry.name)
    ring = entry.mark == "ring"
    return Line2D(
        [],
        [],
        color=entry.colour,
        linestyle="none",
        marker="o",
        markersize=12 if ring else 6,
        fillstyle="none" if ring else "full",
        label=entry.name,
    )
