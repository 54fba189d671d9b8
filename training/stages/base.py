"""The start model, where there is none: the tiny model, made from nothing.

It learns from the rows' own worked chains until it can just do the task now and then; a run that
starts from a model of somebody else's has no such stage.
"""

from __future__ import annotations

from pathlib import Path

from training.data.mixing import beside
from training.stages.sft_stage import run_sft
from training.stages.stage import Stage
from training.stages.worked_examples import worked_examples
from training.tiny.model import build

__all__ = ["run"]


def run(stage: Stage) -> Path:
    """Draws the weights, then imitates."""
    start = stage.directory / "blank"
    if stage.ranks.index == 0 and not (start / "config.json").exists():
        build(start, seed=stage.seed)
    stage.ranks.wait()
    rows = stage.rows(stage.table.rows)
    general = stage.general(beside(len(rows), stage.table.general))
    return run_sft(
        stage,
        start,
        rows,
        lambda model, prompter: (worked_examples(stage, prompter, rows, general), [*rows, *general], {}),
    )
