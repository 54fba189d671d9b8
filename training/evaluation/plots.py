"""Draws an evaluation: accuracy against tokens for one question, one line for each policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policies.chart import COLOURS, LegendEntry, Line, Panel, Point, accuracy_chart
from training.evaluation.metrics import GradingMode, Proportion, SettingMetrics
from training.evaluation.settings import EvaluationSetting

__all__ = ["picture"]


def picture(figures: Sequence[SettingMetrics], best: Collection[EvaluationSetting], by: GradingMode) -> str:
    """Return the SVG. A ring marks a setting on the frontier, a vertical bar is a 95% Wilson interval.

    A line joins one budget, vote and stopping rule over the numbers of samples; all lines of a budget begin
    at one sample. With a single number of samples, a line joins one vote and rule over the budgets. Raises
    ChartsUnavailable.
    """
    counts = {figure.setting.samples for figure in figures}
    lines = _over_samples(figures) if len(counts) > 1 else _over_budgets(figures)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(lines)}
    points = [
        _point(figure, figure.accuracy(by), colours[name], figure.setting in best)
        for name, members in lines.items()
        for figure in members
    ]
    joined = [
        Line([(figure.tokens, figure.accuracy(by).percent) for figure in members], colours[name])
        for name, members in lines.items()
    ]
    legend = [LegendEntry(name, colour) for name, colour in colours.items()]
    legend.append(LegendEntry("on the frontier", "#222222", "ring"))
    return accuracy_chart([Panel("tokens", points, joined)], legend)


def _point(figure: SettingMetrics, share: Proportion, colour: str, ring: bool) -> Point:
    name = figure.setting.name
    return Point(name, figure.tokens, share.percent, share.low, share.high, colour, ring)


def _over_samples(figures: Sequence[SettingMetrics]) -> dict[str, list[SettingMetrics]]:
    single = {figure.setting.budget: figure for figure in figures if figure.setting.samples == 1}
    drawn = {figure.setting.budget for figure in figures if figure.setting.samples > 1}
    lines = {budget: [figure] for budget, figure in single.items() if budget not in drawn}
    for figure in figures:
        setting = figure.setting
        if setting.samples > 1:
            name = f"{setting.budget}, {setting.rule}"
            start = [single[setting.budget]] if setting.budget in single else []
            lines.setdefault(name, start).append(figure)
    return lines


def _over_budgets(figures: Sequence[SettingMetrics]) -> dict[str, list[SettingMetrics]]:
    lines: dict[str, list[SettingMetrics]] = {}
    for figure in figures:
        setting = figure.setting
        one = setting.samples == 1
        name = "one sample" if one else f"{setting.samples} samples, {setting.rule}"
        lines.setdefault(name, []).append(figure)
    return lines
