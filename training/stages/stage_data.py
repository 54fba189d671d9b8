"""What a stage trains on, and from which model: a function of the configuration alone, without torch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from training.config import STAGES, Source, TrainConfig, read_config
from training.data.contamination import clean
from training.data.sources import collect, held_out
from training.types import Problem

__all__ = ["StageData", "model_before", "start_model"]


def start_model(config: TrainConfig) -> Path | None:
    """What the run starts from: the model of the stage `base`; None: the configuration's own."""
    made = config.output / "base" / "model"
    return made if "base" in config.pipeline and made.exists() else None


def model_before(config: TrainConfig, name: str) -> Path | None:
    """The model of the last stage before this one that is done; None: the configuration's own."""
    order = config.pipeline
    earlier = order[: list(order).index(name)] if name in order else order
    done = [stage for stage in earlier if (config.output / stage / "card.json").exists()]
    return config.output / done[-1] / "model" if done else None


@dataclass(frozen=True, slots=True)
class StageData:
    """A stage's settings, its seed and its rows."""

    config: TrainConfig
    name: str

    @property
    def table(self) -> Any:
        """The stage's own settings."""
        if self.name in STAGES:
            return self.config.table(self.name)
        return getattr(self.config, self.name)

    @property
    def seed(self) -> int:
        """The stage's seed, a positive 31-bit number."""
        digest = hashlib.sha256(f"{self.config.seed}/{self.name}".encode()).digest()
        return int.from_bytes(digest[:4], "big") >> 1

    def held_out(self) -> list[Problem]:
        """The questions that no stage trains on."""
        return held_out(self.config.held_out.sources, self.config.held_out.count)

    def kept_apart(self) -> list[Problem]:
        """All that is not trained on: this run's held-out questions, and those of the runs that it names."""
        others = [read_config(path).held_out for path in self.config.held_out.apart]
        return [*self.held_out(), *(row for each in others for row in held_out(each.sources, each.count))]

    def rows(self, count: int) -> list[Problem]:
        """Training rows, none of which overlaps with one that is kept apart."""
        return self._apart(self.config.data, count)

    def general(self, count: int) -> list[Problem]:
        """General rows, none of which overlaps with one that is kept apart."""
        rows = self._apart(self.config.general, count) if count else []
        return [replace(row, general=True) for row in rows]

    def _apart(self, sources: Sequence[Source], count: int) -> list[Problem]:
        kept = self.kept_apart()
        rows = collect(sources, count, self.seed, without=[row.question for row in kept])
        return clean(rows, kept)
