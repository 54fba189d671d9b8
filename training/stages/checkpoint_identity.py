"""Digests of what a stage's checkpoints belong to: with other data or another model they are another run's.

The learning rate, the weights of rewards, the length limit, TRL's further settings and the stopping rules may
change between restarts. The problems of a step, the model, and the measure of held-out accuracy may not. The
keyword names here are part of the digests: renaming one makes all earlier checkpoints unreadable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from training.config import RlTable, SftTable, StageTable
from training.data.mixing import general_count
from training.data.readers import fingerprint
from training.stages.cache import digest, weights_digest
from training.stages.stage import Stage
from training.types import Problem

__all__ = ["collection_digest", "levels_in_use", "model_identity", "rl_digest", "sft_digest"]

_TRAINING_SETTINGS = frozenset(
    ("batch", "decay", "every", "rate", "save_every", "seconds", "steps", "trl", "until", "warmup")
)
"""Settings that the collected examples don't depend on, by their first names."""


def model_identity(stage: Stage[StageTable], start: Path | None) -> list[object]:
    """Return what identifies the model that a stage starts from: its settings and its weights on disk."""
    source = stage.config.model
    path = Path(source.path).expanduser()
    local = path if path.exists() else None
    return [
        source.model_dump(mode="json"),
        weights_digest(start),
        weights_digest(local),
        weights_digest(source.adapter),
    ]


def levels_in_use(stage: Stage[StageTable]) -> dict[str, object]:
    """Return the budgets that the stage asks at, with their meaning for this model."""
    names = {*stage.table.budgets, stage.config.held_out.budget}
    return {name: asdict(level) for name, level in stage.config.budgets.items() if name in names}


def rl_digest(stage: Stage[RlTable], start: Path | None, problems: Sequence[Problem]) -> str:
    """Return the digest of a stage of reinforcement learning on these problems."""
    table = stage.table
    step = [
        table.groups,
        table.num_generations,
        table.num_iterations,
        table.budgets,
        table.temperature,
        table.general,
    ]
    return digest(step=step, rows=fingerprint(problems), **_common(stage, start))


def collection_digest(stage: Stage[SftTable], start: Path | None, problems: Sequence[Problem]) -> str:
    """Return the digest of everything that decides which examples a stage of fine-tuning collects."""
    table = stage.table
    samples_from_before = table.teacher == "policy" or table.fresh
    settings = table.by_first_names()
    return digest(
        settings={name: settings[name] for name in settings.keys() - _TRAINING_SETTINGS},
        seed=stage.seed,
        model=model_identity(stage, start),
        before=weights_digest(stage.run.model_before(stage.name)) if samples_from_before else "",
        scorer=weights_digest(table.scorer),
        levels=levels_in_use(stage),
        rows=fingerprint(problems),
        general=fingerprint(stage.general_problems(general_count(len(problems), table.general))),
    )


def sft_digest(stage: Stage[SftTable], start: Path | None, collection: str) -> str:
    """Return the digest of a stage of fine-tuning, from the digest of what it collects."""
    return digest(step=[stage.table.batch], gathered=collection, **_common(stage, start))


def _common(stage: Stage[StageTable], start: Path | None) -> dict[str, object]:
    held_out = stage.config.held_out
    return {
        "seed": stage.seed,
        "model": model_identity(stage, start),
        "levels": levels_in_use(stage),
        "held_out": [fingerprint(stage.held_out()), held_out.budget, held_out.max_tokens],
    }
