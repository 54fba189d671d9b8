"""Builds the start model, if there is none: the tiny model, from random weights.

It learns from the problems' own worked chains until it can solve some of them. A run that starts from an
existing model has no such stage.
"""

from __future__ import annotations

from pathlib import Path

from training.config import SftTable
from training.data.mixing import general_count
from training.data.prompts import Prompter
from training.stages.sft_stage import Collection, run_sft
from training.stages.stage import Stage
from training.stages.worked_examples import worked_examples
from training.tiny.model import build
from training.trainer.untyped import Model

__all__ = ["run"]


def run(stage: Stage[SftTable]) -> Path:
    """Draw the weights, then fine-tune on worked chains."""
    start = stage.directory / "blank"
    if stage.group.rank == 0 and not (start / "config.json").exists():
        build(start, seed=stage.seed)
    stage.group.wait()
    problems = stage.problems(stage.table.problems)
    general = stage.general_problems(general_count(len(problems), stage.table.general))

    def collect(model: Model, prompter: Prompter) -> Collection:
        return Collection(worked_examples(stage.data, prompter, problems, general), [*problems, *general])

    return run_sft(stage, start, problems, collect)
