"""Reinforcement learning straight from the start model, without a single example to imitate (R1-Zero).

Source: DeepSeek-R1, arXiv:2501.12948, section 2.2. Its samples may feed the cold start.
"""

from __future__ import annotations

from pathlib import Path

from training.config import RlTable
from training.stages.grpo_stage import run_grpo
from training.stages.stage import Stage

__all__ = ["run"]


def run(stage: Stage[RlTable]) -> Path:
    """Train by GRPO from the start model."""
    return run_grpo(stage, stage.run.start_model(), stage.problems(stage.table.problems))
