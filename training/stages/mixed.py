"""Reinforcement learning for all scenarios: each row is judged by its own reward.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.4. Verifiable rows by the verifier, checkable
instructions by their checks, general rows by a preference model that is trained here first, so
that general ability and manners stay.
"""

from __future__ import annotations

from pathlib import Path

from training.data.mixing import general_count
from training.rewards import RewardContext
from training.stages.fingerprints import rl_bound
from training.stages.preference import preference_model
from training.stages.reinforce import reinforce
from training.stages.run import Stage

__all__ = ["run"]


def run(stage: Stage) -> Path:
    """Mixes reasoning and general rows, trains the preference model if a row needs it, then GRPO."""
    table = stage.table
    before = stage.run.model_before("mixed")
    reasoning = stage.rows(table.rows)
    general = stage.general(general_count(len(reasoning), table.general))
    rows = [*reasoning, *general]
    setting = RewardContext()
    if any(row.reward == "preference" for row in rows):
        stage.last_checkpoint(rl_bound(stage, before, rows))  # refuses before its model is overwritten
        compared = [row for row in rows if row.general or row.reward == "preference"]
        model, centre = preference_model(stage, before, compared)
        setting = RewardContext(preference=model, preference_centre=centre)
    return reinforce(stage, before, rows, setting)
