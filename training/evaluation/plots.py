"""Draws an evaluation: accuracy against tokens for one question, one line for each policy."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from policies.chart import COLOURS, LegendEntry, Line, Panel, Point, accuracy_chart
from training.evaluation.metrics import GradingMode, Proportion, SettingMetrics
from training.evaluation.settings import EvaluationSetting

__all__ = ["evaluation_chart"]


def evaluation_chart(
    metrics: Sequence[SettingMetrics], frontier: Collection[EvaluationSetting], mode: GradingMode
) -> str:
    """Return the SVG. A ring marks a setting on the frontier, a vertical bar is a 95% Wilson interval.

    A line joins one budget, vote and stopping rule over the numbers of samples; all lines of a budget begin
    at one sample. With a single number of samples, a line joins one vote and rule over the budgets. Raises
    ChartsUnavailable.
    """
    counts = {measured.setting.samples for measured in metrics}
    lines = _over_samples(metrics) if len(counts) > 1 else _over_budgets(metrics)
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(lines)}
    points = [
        _point(measured, measured.accuracy(mode), colours[name], measured.setting in frontier)
        for name, members in lines.items()
        for measured in members
    ]
    joined = [
        Line([(measured.tokens, measured.accuracy(mode).percent) for measured in members], colours[name])
        for name, members in lines.items()
    ]
    legend = [LegendEntry(name, colour) for name, colour in colours.items()]
    legend.append(LegendEntry("on the frontier", "#222222", "ring"))
    return accuracy_chart([Panel("tokens", points, joined)], legend)


def _point(measured: SettingMetrics, accuracy: Proportion, colour: str, ring: bool) -> Point:
    name = measured.setting.name
    return Point(name, measured.tokens, accuracy.percent, accuracy.low, accuracy.high, colour, ring)


def _over_samples(metrics: Sequence[SettingMetrics]) -> dict[str, list[SettingMetrics]]:
    single = {measured.setting.budget: measured for measured in metrics if measured.setting.samples == 1}
    with_votes = {measured.setting.budget for measured in metrics if measured.setting.samples > 1}
    lines = {budget: [measured] for budget, measured in single.items() if budget not in with_votes}
    for measured in metrics:
        setting = measured.setting
        if setting.samples > 1:
            name = f"{setting.budget}, {setting.rule}"
            start = [single[setting.budget]] if setting.budget in single else []
            lines.setdefault(name, start).append(measured)
    return lines


def _over_budgets(metrics: Sequence[SettingMetrics]) -> dict[str, list[SettingMetrics]]:
    lines: dict[str, list[SettingMetrics]] = {}
    for measured in metrics:
        setting = measured.setting
        one = setting.samples == 1
        name = "one sample" if one else f"{setting.samples} samples, {setting.rule}"
        lines.setdefault(name, []).append(measured)
    return lines
