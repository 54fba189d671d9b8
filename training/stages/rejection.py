"""Rejection sampling: many replies a question, the best kept, imitated together with general rows.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.3: of about 800,000 samples three quarters are
reasoning, drawn from the RL checkpoint and kept where right; the rest is general, so that other
abilities stay. R1 trains its start model anew on them: `fresh = true`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from training.data.mixing import general_count
from training.data.prompts import Example, Prompter
from training.stages.imitate import imitate
from training.stages.imitation_replies import general_examples, kept
from training.stages.run import Stage
from training.types import Problem

__all__ = ["run"]


def run(stage: Stage) -> Path:
    """Draws from the stage before, keeps the best, mixes, imitates."""
    rows = stage.rows(stage.table.rows)
    before = stage.run.model_before("rejection")

    def gather(model: Any, prompter: Prompter) -> tuple[list[Example], list[Problem], dict[str, Any]]:
        policy = stage.load(before)[0] if stage.table.fresh else model
        examples, told = kept(stage, policy, prompter, rows)
        general = stage.general(general_count(len(examples), stage.table.general))
        return [*examples, *general_examples(stage, model, prompter, general)], [*rows, *general], told

    return imitate(stage, stage.run.start_model() if stage.table.fresh else before, rows, gather)
