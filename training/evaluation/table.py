"""The metrics of an evaluation as a terminal table."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.table import Table

from training.evaluation.metrics import GradingMode, Proportion, SettingMetrics
from training.evaluation.settings import EvaluationSetting

__all__ = ["metrics_table"]


def metrics_table(
    metrics: Sequence[SettingMetrics],
    frontier: Collection[EvaluationSetting],
    mode: GradingMode,
    title: str,
) -> Table:
    """Return a table with one row a setting; a star marks the settings on the Pareto frontier."""
    table = Table(
        title=title,
        caption="% right with 95% Wilson intervals; * on the frontier",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    table.add_column("setting", no_wrap=True)
    for column in ("strict", "lenient", "tokens", "thinking", "samples", "cut"):
        table.add_column(f"{column}*" if column == mode else column, justify="right", no_wrap=True)
    for measured in metrics:
        table.add_row(
            f"{'*' if measured.setting in frontier else ' '} {measured.setting.name}",
            _percentage(measured.strict),
            _percentage(measured.lenient),
            f"{measured.tokens:.0f}",
            f"{measured.reasoning:.0f}",
            f"{measured.samples:.2f}",
            str(measured.truncated),
        )
    return table


def _percentage(share: Proportion) -> str:
    return f"{share.percent:.1f} ({share.low:.0f}-{share.high:.0f})"
