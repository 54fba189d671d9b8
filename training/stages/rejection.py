"""Rejection sampling: many replies a problem, and fine-tuning on the best ones and on general problems.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.3. Of about 800,000 samples three quarters are reasoning,
sampled from the RL checkpoint and selected where right. The rest is general, so that other abilities stay. R1
trains its start model anew on them: `fresh = true`.
"""

from __future__ import annotations

from pathlib import Path

from training.config import SftTable
from training.data.mixing import general_count
from training.data.prompts import Prompter
from training.stages.sft_examples import general_examples, sampled_examples
from training.stages.sft_stage import Collection, run_sft
from training.stages.stage import Stage
from training.trainer.untyped import Model

__all__ = ["run"]


def run(stage: Stage[SftTable]) -> Path:
    """Sample from the stage before, select the best, mix in general examples, fine-tune."""
    problems = stage.problems(stage.table.problems)
    before = stage.run.model_before("rejection")

    def collect(model: Model, prompter: Prompter) -> Collection:
        policy = stage.load(before)[0] if stage.table.fresh else model
        examples, results = sampled_examples(stage, policy, prompter, problems)
        general = stage.general_problems(general_count(len(examples), stage.table.general))
        examples += general_examples(stage, model, prompter, general)
        return Collection(examples, [*problems, *general], results)

    return run_sft(stage, stage.run.start_model() if stage.table.fresh else before, problems, collect)
