"""Reinforcement learning for all scenarios: each problem is judged by its own reward.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.4. The verifier judges verifiable problems, checks judge
instructions, and a preference model judges general problems, so that general ability and manners stay. The
preference model is trained here first.
"""

from __future__ import annotations

from pathlib import Path

from training.config import RlTable
from training.data.mixing import general_count
from training.rewards import RewardContext
from training.stages.checkpoint_identity import rl_digest
from training.stages.grpo_stage import run_grpo
from training.stages.preference import preference_model
from training.stages.stage import Stage

__all__ = ["run"]


def run(stage: Stage[RlTable]) -> Path:
    """Mix reasoning and general problems, train the preference model if one needs it, train by GRPO."""
    table = stage.table
    before = stage.run.model_before("mixed")
    reasoning = stage.problems(table.problems)
    general = stage.general_problems(general_count(len(reasoning), table.general))
    problems = [*reasoning, *general]
    context = RewardContext()
    if any(problem.reward == "preference" for problem in problems):
        stage.last_checkpoint(rl_digest(stage, before, problems))  # refuses before its model is overwritten
        comparable = [problem for problem in problems if problem.general or problem.reward == "preference"]
        model, centre = preference_model(stage, before, comparable)
        context = RewardContext(preference=model, preference_centre=centre)
    return run_grpo(stage, before, problems, context)
