"""What a stage's checkpoints are bound to: over other data, or with another model, they are another run's.

How fast it learns, what the rewards weigh, how long replies may be and when the stage ends may change on
the way; which questions a step asks, of which model, and what held-out accuracy is measured by may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from training.data.readers import fingerprint
from training.stages.cache import digest, weights_digest
from training.stages.stage import Stage
from training.types import Problem

__all__ = ["levels_in_use", "model_identity", "rl_digest", "sft_digest"]


def model_identity(stage: Stage, start: Path | None) -> list[Any]:
    """What tells the model that a stage starts from: its settings, and what weights lie on this machine."""
    source = stage.config.model
    path = Path(source.path).expanduser()
    local = path if path.exists() else None
    return [
        source.model_dump(mode="json"),
        weights_digest(start),
        weights_digest(local),
        weights_digest(source.adapter),
    ]


def levels_in_use(stage: Stage) -> dict[str, Any]:
    """The budgets that the stage asks at, and what they are for this model."""
    asked = {*stage.table.budgets, stage.config.held_out.budget}
    return {name: asdict(level) for name, level in stage.config.budgets.items() if name in asked}


def rl_digest(stage: Stage, start: Path | None, rows: Sequence[Problem]) -> str:
    """Of a stage of RL on these rows."""
    table = stage.table
    step = [table.groups, table.samples, table.updates, table.budgets, table.temperature, table.general]
    return digest(step=step, rows=fingerprint(rows), **_common(stage, start))


def sft_digest(stage: Stage, start: Path | None, gathered: str) -> str:
    """Of a stage of imitation, by what the gathering is bound to."""
    return digest(step=[stage.table.batch], gathered=gathered, **_common(stage, start))


def _common(stage: Stage, start: Path | None) -> dict[str, Any]:
    held = stage.config.held_out
    return {
        "seed": stage.seed,
        "model": model_identity(stage, start),
        "levels": levels_in_use(stage),
        "held_out": [fingerprint(stage.held_out()), held.budget, held.max_tokens],
    }
