"""Reasoning-oriented reinforcement learning from the cold-started model, until held-out accuracy converges.

Source: DeepSeek-R1, arXiv:2501.12948, section 2.3.2.
"""

from __future__ import annotations

from pathlib import Path

from training.config import RlTable
from training.stages.grpo_stage import run_grpo
from training.stages.stage import Stage

__all__ = ["run"]


def run(stage: Stage[RlTable]) -> Path:
    """Train by GRPO from the previous stage's model, with binary verifiable rewards."""
    return run_grpo(stage, stage.run.model_before("rl"), stage.problems(stage.table.problems))
