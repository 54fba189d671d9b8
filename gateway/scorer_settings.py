"""The scorers that clients can name: those that need no settings, and `[scorers.<name>]` in the settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, model_validator

from scorers.agreement import AgreementScorer
from scorers.confidence import WINDOW, ConfidenceScorer
from scorers.judge import QUESTION, RUBRIC, JudgeScorer
from scorers.trained import TEMPLATE
from scorers.types import Scorer

__all__ = [
    "SCORERS",
    "AgreementTable",
    "AnyScorer",
    "CombinedTable",
    "ConfidenceTable",
    "JudgeTable",
    "TrainedTable",
    "check_scorers",
]

SCORERS: Mapping[str, Scorer] = MappingProxyType(
    {"confidence": ConfidenceScorer(), "agreement": AgreementScorer(), "judge": JudgeScorer()}
)
"""The scorers that need no settings. To add one, write it in `scorers/` and name it here."""


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ConfidenceTable(_Table):
    """`kind = "confidence"`: how sure the model was of its own tokens."""

    kind: Literal["confidence"]
    measure: Literal["bottom", "lowest", "mean", "tail", "certainty", "probability"] = "bottom"
    window: Annotated[int, Field(ge=1)] = WINDOW


class AgreementTable(_Table):
    """`kind = "agreement"`: how much the others agree."""

    kind: Literal["agreement"]


class JudgeTable(_Table):
    """`kind = "judge"`: a language model that picks, grades or, trained to it, checks."""

    kind: Literal["judge"]
    method: Literal["pick", "grade", "check"] = "pick"
    url: HttpUrl | None = None
    """Of a server of its own, ending in /v1; None: the request's own upstream."""
    key: SecretStr | None = None
    key_env: str | None = None
    model: str | None = None
    effort: str | None = None
    """Its budget; None: off at the request's upstream, and at `url` whatever is the default there."""
    rubric: str = RUBRIC
    rounds: Annotated[int, Field(ge=1, le=16)] = 2
    seed: int = 0
    characters: Annotated[int, Field(ge=1)] = 24_000
    max_tokens: Annotated[int, Field(ge=1)] = 512
    concurrency: Annotated[int, Field(ge=1)] = 8
    question: str = QUESTION
    calibration: Path | None = None
    gate: Path | None = None
    """A check's release gate, as a trained classifier's."""
    unproven: bool = False

    @model_validator(mode="after")
    def _asks_for_the_answer(self) -> JudgeTable:
        if "{answer}" not in self.question:
            raise ValueError("the question has no {answer}")
        if self.url is not None and self.model is None:
            raise ValueError("a judge with a url needs its model's name there")
        if self.url is None and (self.key or self.key_env):
            raise ValueError("a key is for a url")
        return self


class TrainedTable(_Table):
    """`kind = "trained"`: a classifier behind `url`, or in the local `directory`."""

    kind: Literal["trained"]
    url: HttpUrl | None = None
    key: SecretStr | None = None
    key_env: str | None = None
    """Name of an environment variable that holds the key, so that the file needn't."""
    model: str | None = None
    endpoint: Literal["classify", "score"] = "classify"
    directory: Path | None = None
    template: str = TEMPLATE
    label: int = -1
    batch: Annotated[int, Field(ge=1)] = 64
    max_tokens: Annotated[int, Field(ge=1)] = 4096
    calibration: Path | None = None
    gate: Path | None = None
    """The file of its release gate (`scorers.gate`). None: gate.json in the directory."""
    unproven: bool = False
    """Whether it is served without a passing gate."""

    @model_validator(mode="after")
    def _one_place(self) -> TrainedTable:
        if (self.url is None) == (self.directory is None):
            raise ValueError("a trained scorer has either a url or a directory")
        if "{answer}" not in self.template:
            raise ValueError("the template has no {answer}")
        return self


class CombinedTable(_Table):
    """`kind = "combined"`: other scorers by name, each with its weight."""

    kind: Literal["combined"]
    weights: Annotated[dict[str, Annotated[float, Field(gt=0)]], Field(min_length=1)]


AnyScorer = Annotated[
    ConfidenceTable | AgreementTable | JudgeTable | TrainedTable | CombinedTable, Field(discriminator="kind")
]


def check_scorers(tables: Mapping[str, AnyScorer]) -> None:
    """Raises ValueError where a name can't be used, or a combination names what can't be combined."""
    single = {*SCORERS, *(name for name, table in tables.items() if not isinstance(table, CombinedTable))}
    for name, table in tables.items():
        if name == "none":
            raise ValueError('no scorer can be called "none"')
        if isinstance(table, CombinedTable) and (unknown := table.weights.keys() - single):
            raise ValueError(f"{name}.weights: {', '.join(sorted(unknown))} is no single scorer")
