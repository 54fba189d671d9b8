"""The start model, where there is none: the tiny model, made from nothing.

It learns from the rows' own worked chains until it can just do the task now and then; a run that
starts from a model of somebody else's has no such stage.
"""

from __future__ import annotations

from pathlib import Path

from training.data.mixing import general_count
from training.stages.imitate import imitate
from training.stages.run import Stage
from training.stages.worked_replies import worked
from training.tiny.model import build

__all__ = ["run"]


def run(stage: Stage) -> Path:
    """Draws the weights, then imitates."""
    start = stage.directory / "blank"
    if stage.ranks.index == 0 and not (start / "config.json").exists():
        build(start, seed=stage.seed)
    stage.ranks.wait()
    rows = stage.rows(stage.table.rows)
    general = stage.general(general_count(len(rows), stage.table.general))
    return imitate(
        stage,
        start,
        rows,
        lambda model, prompter: (worked(stage, prompter, rows, general), [*rows, *general], {}),
    )
