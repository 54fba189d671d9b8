"""The data and the start model of a stage: functions of the configuration alone, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from training.config import RlTable, ScorerTable, SftTable, Source, TrainConfig, read_config
from training.data.contamination import clean
from training.data.sources import collect, held_out
from training.types import Problem

__all__ = ["StageData", "Table_co", "model_before", "start_model"]

Table_co = TypeVar("Table_co", bound=SftTable | RlTable | ScorerTable, covariant=True)
"""The type of a stage's settings."""


def start_model(config: TrainConfig) -> Path | None:
    """Return the model that the run starts from: that of the stage `base`. None: the configuration's own."""
    model = config.output / "base" / "model"
    return model if "base" in config.pipeline and model.exists() else None


def model_before(config: TrainConfig, name: str) -> Path | None:
    """Return the model of the last finished stage before this one. None: the configuration's own."""
    order = config.pipeline
    earlier = order[: list(order).index(name)] if name in order else order
    finished = [stage for stage in earlier if (config.output / stage / "card.json").exists()]
    return config.output / finished[-1] / "model" if finished else None


@dataclass(frozen=True, slots=True)
class StageData(Generic[Table_co]):
    """A stage's settings, its seed and its problems."""

    config: TrainConfig
    name: str
    table: Table_co

    @property
    def seed(self) -> int:
        """The stage's seed, a positive 31-bit number."""
        digest = hashlib.sha256(f"{self.config.seed}/{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def held_out(self) -> list[Problem]:
        """Return the questions that no stage trains on."""
        return held_out(self.config.held_out.sources, self.config.held_out.count)

    def excluded(self) -> list[Problem]:
        """Return all that is not trained on: held-out questions of this run and of the runs that it names."""
        others = [read_config(path).held_out for path in self.config.held_out.other_runs]
        return [
            *self.held_out(),
            *(problem for other in others for problem in held_out(other.sources, other.count)),
        ]

    def problems(self, count: int) -> list[Problem]:
        """Return training problems that overlap with no excluded one."""
        return self._collect(self.config.data, count)

    def general_problems(self, count: int) -> list[Problem]:
        """Return general problems that overlap with no excluded one."""
        problems = self._collect(self.config.general, count) if count else []
        return [replace(problem, general=True) for problem in problems]

    def _collect(self, sources: Sequence[Source], count: int) -> list[Problem]:
        excluded = self.excluded()
        problems = collect(sources, count, self.seed, without=[problem.question for problem in excluded])
        return clean(problems, excluded)
