"""The figures of an evaluation, as a table for people."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich.table import Table

from training.evaluation.metrics import GradingMode, Proportion, SettingMetrics
from training.evaluation.settings import EvaluationSetting

__all__ = ["metrics_table"]


def metrics_table(
    figures: Sequence[SettingMetrics], best: Collection[EvaluationSetting], by: GradingMode, title: str
) -> Table:
    """One row a setting; a star stands before those that no other beats by the reading compared."""
    made = Table(
        title=title,
        caption="% right with 95% Wilson intervals; * on the frontier",
        box=None,
        padding=(0, 2, 0, 0),
        pad_edge=False,
    )
    made.add_column("setting", no_wrap=True)
    for column in ("strict", "lenient", "tokens", "thinking", "samples", "cut"):
        made.add_column(f"{column}*" if column == by else column, justify="right", no_wrap=True)
    for figure in figures:
        made.add_row(
            f"{'*' if figure.setting in best else ' '} {figure.setting.name}",
            _share(figure.strict),
            _share(figure.lenient),
            f"{figure.tokens:.0f}",
            f"{figure.reasoning:.0f}",
            f"{figure.samples:.2f}",
            str(figure.truncated),
        )
    return made


def _share(share: Proportion) -> str:
    return f"{share.percent:.1f} ({share.low:.0f}-{share.high:.0f})"
