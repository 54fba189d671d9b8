"""The chart of an evaluation: accuracy against tokens per question, one line a policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policies.chart import COLOURS, Entry, Line, Panel, Point, chart
from training.evaluation.metrics import GradingMode, Proportion, SettingMetrics
from training.evaluation.settings import EvaluationSetting

__all__ = ["picture"]


def picture(figures: Sequence[SettingMetrics], best: Collection[EvaluationSetting], by: GradingMode) -> str:
    """Return the SVG; rings mark the frontier, and vertical bars are 95% Wilson intervals.

    A line joins the numbers of samples of one budget, vote and stopping rule. All lines of a budget start
    at its single sample. If there is only one number of samples, a line joins the budgets of one vote
    and stopping rule instead.
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
    legend = [Entry(name, colour) for name, colour in colours.items()]
    legend.append(Entry("on the frontier", "#222", "ring"))
    return chart([Panel("tokens", points, joined)], legend, legend_width=260)


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
