"""Accuracy against samples and against tokens, as an SVG written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from policies.replay import Figure

__all__ = ["svg"]

PANEL_WIDTH, PANEL_HEIGHT, MARGIN, LEGEND = 420, 320, 56, 190
COLOURS = ("#1b6ca8", "#d1495b", "#2e8b57", "#8e5ea2", "#e08e0b", "#3aa6a6", "#7a5230", "#5b5f97")


def svg(figures: Sequence[Figure]) -> str:
    """Two panels: percent right over mean samples, and over mean tokens, for one question.

    The settings of one family ("pass@k", "majority@k") are joined by a line, and both
    lines start at pass@1; a vertical bar is the 95% interval.
    """
    width, height = 2 * (PANEL_WIDTH + MARGIN) + LEGEND, PANEL_HEIGHT + 2 * MARGIN
    colours = {figure.name: COLOURS[i % len(COLOURS)] for i, figure in enumerate(_alone(figures))}
    body = [
        _panel(figures, [figure.samples for figure in figures], "samples", MARGIN, colours),
        _panel(figures, [figure.tokens for figure in figures], "tokens", PANEL_WIDTH + 2 * MARGIN, colours),
        _legend(colours, 2 * (PANEL_WIDTH + MARGIN) + 20),
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(body) + "\n</svg>\n"
    )


def _family(name: str) -> str:
    """The line a setting lies on; empty for one that stands alone."""
    if name.startswith("pass@") or name == "oracle":
        return "pass@k"
    return "majority@k" if name.startswith("majority@") or name == "majority" else ""


def _alone(figures: Sequence[Figure]) -> list[Figure]:
    return [figure for figure in figures if not _family(figure.name)]


def _panel(
    figures: Sequence[Figure], costs: Sequence[float], unit: str, left: int, colours: dict[str, str]
) -> str:
    most = max(costs) * 1.05 or 1.0
    floor = max(0.0, min(figure.low for figure in figures) - 2)
    ceiling = min(100.0, max(figure.high for figure in figures) + 2)
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
        f"{unit} for one question</text>"
        f'<text x="{left}" y="{top - 12}">% right</text>'
    )
    for family, style in (("pass@k", "stroke-dasharray='5 4'"), ("majority@k", "")):
        points = sorted(
            (cost, figure.accuracy)
            for figure, cost in zip(figures, costs, strict=True)
            if _family(figure.name) == family or figure.name == "pass@1"
        )
        path = " ".join(f"{x(cost):.1f},{y(accuracy):.1f}" for cost, accuracy in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="#777" stroke-width="1.5" {style}/>')
    for figure, cost in zip(figures, costs, strict=True):
        colour = colours.get(figure.name, "#777")
        parts.append(
            f'<path d="M{x(cost):.1f} {y(figure.low):.1f}V{y(figure.high):.1f}" '
            f'stroke="{colour}" opacity=".4"/>'
            f'<circle cx="{x(cost):.1f}" cy="{y(figure.accuracy):.1f}" r="4" fill="{colour}">'
            f"<title>{escape(figure.name)}: {figure.accuracy:.1f}% at {cost:.1f} {unit}</title></circle>"
        )
    return "\n".join(parts)


def _legend(colours: dict[str, str], left: int) -> str:
    rows = [
        f'<path d="M{left} {MARGIN + 4}h24" stroke="#777" stroke-dasharray="5 4"/>'
        f'<text x="{left + 32}" y="{MARGIN + 8}">pass@k, oracle</text>',
        f'<path d="M{left} {MARGIN + 24}h24" stroke="#777"/>'
        f'<text x="{left + 32}" y="{MARGIN + 28}">majority@k</text>',
    ]
    for row, (name, colour) in enumerate(colours.items(), 2):
        rows.append(
            f'<circle cx="{left + 12}" cy="{MARGIN + 20 * row + 4}" r="4" fill="{colour}"/>'
            f'<text x="{left + 32}" y="{MARGIN + 20 * row + 8}">{escape(name)}</text>'
        )
    return "\n".join(rows)
