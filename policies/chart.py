"""Accuracy against cost as an SVG written by hand, for replays and for evaluations alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["COLOURS", "GREY", "Entry", "Line", "Panel", "Point", "chart"]

PANEL_WIDTH, PANEL_HEIGHT, MARGIN = 420, 320, 56
GREY = "#777"
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#3aa6a6", "#7a5230", "#5b5f97")


@dataclass(frozen=True, slots=True)
class Point:
    """A setting: its mean cost, its percent right, and the interval's ends; `ring` marks it out."""

    name: str
    cost: float
    accuracy: float
    low: float
    high: float
    colour: str = GREY
    ring: bool = False


@dataclass(frozen=True, slots=True)
class Line:
    """What joins settings of one kind, in the order of their costs: (cost, accuracy) each."""

    points: Sequence[tuple[float, float]]
    colour: str = GREY
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One pair of axes: percent right over `unit`, for one question."""

    unit: str
    points: Sequence[Point]
    lines: Sequence[Line] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the legend."""

    name: str
    colour: str = GREY
    mark: str = "dot"
    """"dot", "line", "dashes" or "ring"."""


def chart(panels: Sequence[Panel], legend: Sequence[Entry], *, legend_width: int = 190) -> str:
    """The panels side by side and the legend; a vertical bar is a point's interval, its title names it."""
    step = PANEL_WIDTH + MARGIN
    width, height = len(panels) * step + legend_width, PANEL_HEIGHT + 2 * MARGIN
    body = [_panel(panel, MARGIN + place * step) for place, panel in enumerate(panels)]
    body += [_entry(entry, len(panels) * step + 20, MARGIN + 20 * row) for row, entry in enumerate(legend)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _panel(panel: Panel, left: int) -> str:
    points = panel.points
    most = max(point.cost for point in points) * 1.05 or 1.0
    floor = max(0.0, min(point.low for point in points) - 2)
    ceiling = min(100.0, max(point.high for point in points) + 2)
    top, bottom = MARGIN, MARGIN + PANEL_HEIGHT
    span = (ceiling - floor) or 1.0

    def x(cost: float) -> float:
        return left + PANEL_WIDTH * cost / most

    def y(accuracy: float) -> float:
        return bottom - PANEL_HEIGHT * (accuracy - floor) / span

    parts = [f'<path d="M{left} {top}V{bottom}H{left + PANEL_WIDTH}" fill="none" stroke="#444"/>']
    for tick in range(6):
        accuracy, cost = floor + span * tick / 5, most * tick / 5
        parts.append(
            f'<text x="{left - 6}" y="{y(accuracy) + 4:.1f}" text-anchor="end">{accuracy:.1f}</text>'
        )
        parts.append(f'<text x="{x(cost):.1f}" y="{bottom + 18}" text-anchor="middle">{cost:.3g}</text>')
    parts.append(
        f'<text x="{left + PANEL_WIDTH / 2}" y="{bottom + 38}" text-anchor="middle">'
        f"{escape(panel.unit)} for one question</text>"
        f'<text x="{left}" y="{top - 12}">% right</text>'
    )
    for line in panel.lines:
        path = " ".join(f"{x(cost):.1f},{y(accuracy):.1f}" for cost, accuracy in sorted(line.points))
        parts.append(
            f'<polyline points="{path}" fill="none" stroke="{line.colour}" stroke-width="1.5"'
            f"{_dashes(line.dashed)}/>"
        )
    for point in points:
        across, up = x(point.cost), y(point.accuracy)
        if point.ring:
            parts.append(f'<circle cx="{across:.1f}" cy="{up:.1f}" r="8" fill="none" stroke="#222"/>')
        parts.append(
            f'<path d="M{across:.1f} {y(point.low):.1f}V{y(point.high):.1f}" '
            f'stroke="{point.colour}" opacity=".4"/>'
            f'<circle cx="{across:.1f}" cy="{up:.1f}" r="4" fill="{point.colour}">'
            f"<title>{escape(point.name)}: {point.accuracy:.1f}% at {point.cost:.1f} {escape(panel.unit)}"
            "</title></circle>"
        )
    return "\n".join(parts)


def _entry(entry: Entry, left: int, top: int) -> str:
    marks = {
        "line": f'<path d="M{left} {top + 4}h24" stroke="{entry.colour}"/>',
        "dashes": f'<path d="M{left} {top + 4}h24" stroke="{entry.colour}"{_dashes(True)}/>',
        "dot": f'<circle cx="{left + 12}" cy="{top + 4}" r="4" fill="{entry.colour}"/>',
        "ring": f'<circle cx="{left + 12}" cy="{top + 4}" r="8" fill="none" stroke="{entry.colour}"/>',
    }
    return f'{marks[entry.mark]}<text x="{left + 32}" y="{top + 8}">{escape(entry.name)}</text>'


def _dashes(dashed: bool) -> str:
    return ' stroke-dasharray="5 4"' if dashed else ""
